"""The pipeline: stages one after another, checks side by side, one release, and its deployments."""

from __future__ import annotations

import getpass
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import anyio
import dagger
from dagger import dag
from opentelemetry import trace

from buildonce.config import Config, ConfigError, StageConfig
from buildonce.errors import BuildonceError, ExitCode
from buildonce.ledger import Ledger, new_run_id
from buildonce.pipeline.checks import Checks, Running
from buildonce.pipeline.errors import explain, gate_error
from buildonce.pipeline.history import History, read_history
from buildonce.pipeline.journal import Journal
from buildonce.pipeline.pull_request import asked_for_pull_request
from buildonce.pipeline.releasing import Build, Releasing
from buildonce.pipeline.signals import until_signal
from buildonce.pipeline.stage import run_stage
from buildonce.release import Release, Revision, read_revision
from buildonce.report import (
    Problem,
    Progress,
    RolloutRecord,
    RunRecord,
    StageRecord,
    clear_reports,
    summarize,
    write_reports,
)
from buildonce.stages import Deployment

if TYPE_CHECKING:
    from buildonce.advisories import Database
    from buildonce.delivery.smoke import Smoke

_tracer = trace.get_tracer("buildonce")

P = ParamSpec("P")

Connect = Callable[[], AbstractAsyncContextManager[object]]


class Pipeline:
    """A run of a pipeline; made by `from_config`.

    Attributes:
        config: the configuration.
        revision: what is built.
        pull_request: what is built is only proposed: it is checked, not released or deployed.
        run: id of this run in the ledger.
    """

    def __init__(
        self,
        config: Config,
        revision: Revision,
        history: History,
        ledger: Ledger,
        journal: Journal,
        *,
        pull_request: bool = False,
    ) -> None:
        self.config = config
        self.revision = revision
        self.pull_request = pull_request
        self._history = history
        self._releasing = Releasing(config, revision, journal, looks_up=not pull_request)
        self.run = journal.record.run
        self._ledger = ledger
        self._journal = journal
        self._stage: StageRecord | None = None

    @classmethod
    @asynccontextmanager
    async def from_config(
        cls,
        path: str | Path = "ci/pipeline.toml",
        *,
        arguments: Sequence[str] = (),
        connect: Connect = dagger.connection,
    ) -> AsyncIterator[Pipeline]:
        """Run the body as a pipeline of the project in the working directory.

        It ends by writing the summary and the reports under `out/`, and, unless all went well, with
        `SystemExit` and the code of what happened (`buildonce.errors.ExitCode`). SIGINT and SIGTERM
        end it in an orderly way: what a deployment had begun is put back first.

        Args:
            path: the configuration.
            arguments: of the command line. `--pull-request`, or BUILDONCE_PULL_REQUEST=1 in the
                environment, makes this the run of a pull request.
            connect: makes the connection to the Dagger API.

        Example:
            async with Pipeline.from_config("ci/pipeline.toml") as pipeline:
                async with pipeline.stage("commit"):
                    ...
        """
        began = time.monotonic()
        root = await anyio.to_thread.run_sync(Path.cwd)
        record = RunRecord(
            run=new_run_id(), pipeline="", version="", revision="", started=datetime.now(UTC)
        )
        journal: Journal | None = None
        try:
            pull_request = asked_for_pull_request(arguments)
            config = await anyio.to_thread.run_sync(Config.load, Path(path))
            revision = await read_revision(root)
            history = await read_history(root)
            record.pipeline, record.profile = config.project.name, config.profile
            record.version, record.revision = revision.version, revision.commit
            out = root / "out"
            await anyio.to_thread.run_sync(clear_reports, out)
            async with AsyncExitStack() as stack:
                ledger = await stack.enter_async_context(Ledger.open(config.ledger_path))
                journal = Journal(ledger, record, Progress(), root, out)
                pipeline = cls(
                    config, revision, history, ledger, journal, pull_request=pull_request
                )
                await journal.append(
                    "run.started",
                    {
                        "pipeline": config.project.name,
                        "revision": revision.commit,
                        "version": revision.version,
                        "actor": _actor(),
                    },
                )
                try:
                    async with until_signal(journal.progress.say), connect():
                        with _tracer.start_as_current_span(
                            config.project.name,
                            attributes={
                                "cicd.pipeline.name": config.project.name,
                                "cicd.pipeline.run.id": record.run,
                            },
                            record_exception=False,
                        ):
                            yield pipeline
                            pipeline._note_unused_options()
                except BaseException as error:
                    _note_problem(error, journal, record)
                    if not isinstance(error, Exception):
                        raise
                finally:
                    record.exit_code = record.exit_code or ExitCode.PASSED
                    record.seconds = time.monotonic() - began
                    with anyio.CancelScope(shield=True):
                        await journal.append(
                            "run.finished", {"result": record.result, "seconds": record.seconds}
                        )
        except Exception as error:
            _note_problem(error, journal, record)
        record.seconds = time.monotonic() - began
        if journal is not None:
            await anyio.to_thread.run_sync(write_reports, record, journal.out)
        summarize(record)
        if record.exit_code:
            raise SystemExit(int(record.exit_code))

    def source(self, *, exclude: Sequence[str] = ()) -> dagger.Directory:
        """The project, without what Git ignores.

        Args:
            exclude: more patterns to leave out.
        """
        return dag.host().directory(
            str(self._journal.root), exclude=[".git", "out", *exclude], gitignore=True
        )

    def image(self, name: str) -> dagger.Container:
        """A container of the image that `[images]` of the configuration calls `name`.

        Raises:
            ConfigError: there is none of that name.
        """
        return dag.container().from_(self.config.image(name))

    def tool(self, name: str, *, base: dagger.Container | None = None) -> dagger.Container:
        """A container with a program of `[tools]` on its PATH.

        Args:
            name: the program's: "gitleaks".
            base: what the program is added to, in place of the configured base.

        Raises:
            ConfigError: `[tools]` has none of that name, or `[images]` not its base.

        Example:
            gitleaks = pipeline.tool("gitleaks")
        """
        tool = self.config.tool(name)
        image = dag.container().from_(tool.image)
        if base is None and tool.base is not None:
            base = self.image(tool.base)
        if base is None:
            return image
        return base.with_file(f"/usr/local/bin/{name}", image.file(tool.path), permissions=0o755)

    async def advisories(self) -> Database:
        """The database of known vulnerabilities that `[advisories]` names.

        Raises:
            BadDatabase: it is missing, empty, damaged, or older than the configuration allows.
        """
        from buildonce.advisories import open_database

        read = partial(open_database, self.config.advisories, near=self.config.path)
        return await anyio.to_thread.run_sync(read)

    def history(self) -> dagger.Directory:
        """Every commit that the checkout knows, as a bare Git repository: what secrets may lie in.

        Where commits are missing (a shallow clone), the summary says so.
        """
        if note := self._history.incomplete:
            self._journal.record.notes.append(f"the history is incomplete: {note}")
        return self._history.directory()

    @asynccontextmanager
    async def stage(
        self, name: str, *, budget: timedelta | None = None, warn: timedelta | None = None
    ) -> AsyncIterator[None]:
        """Run the body as a stage.

        Args:
            name: of the stage; `[stages.<name>]` of the configuration has its budget and warning.
            budget: how long it may take, in place of the configured time.
            warn: from when on it is called slow, in place of the configured time.

        Raises:
            StageTimedOut: it was ended because its budget was spent.
        """
        if self._stage is not None:
            raise BuildonceError(
                f"the stage {name} begins inside the stage {self._stage.name}",
                remedy="begin a stage after the one before it has ended",
            )
        configured = self.config.stages.get(name, StageConfig())
        async with run_stage(
            name,
            self._journal,
            budget=budget or configured.budget,
            warn=warn or configured.warn,
        ) as self._stage:
            try:
                yield
            finally:
                self._stage = None

    def parallel(self) -> Checks:
        """A group of checks that run side by side, with a gate behind them.

        Raises (where the group ends):
            CheckFailed: checks failed; all of them are named.
        """
        return Checks(self._current_stage("checks"), self._journal, self.config)

    def once(self, build: Build[P]) -> Build[P]:
        """A build stage that is done once for each version, whoever runs the pipeline again.

        A version that the registry holds, signed and with all its evidence, is not built again: its
        image goes through the checks. A registry that does not answer is an error, never "absent".

        Example:
            image = checks.start(pipeline.once(build_image), source)
        """
        return self._releasing.once(build)

    async def release(self, image: dagger.Container | Running[dagger.Container]) -> Release:
        """Cut the release: push the image, once; sign it, and what the checks found, on its digest.

        Args:
            image: what was built; also as it was started among the checks.

        Raises:
            CheckFailed: a check of this run did not pass. Nothing was pushed.
            ReleaseConflict: this version was released before, and was something else.
        """
        self._refuse_for_pull_requests("cuts no release")
        stages = self._journal.record.stages
        if failing := [check for stage in stages for check in stage.failing]:
            raise gate_error(failing)
        container = await image if isinstance(image, Running) else image
        checks = [check for stage in stages for check in stage.checks]
        release, changed = await self._releasing.cut(container, checks)
        known = await self._ledger.release(release.image.digest) is not None
        await self._record_release(release)
        if isinstance(image, Running):
            # Only now it is known whether the build gave anything new.
            image.record.cached, image.record.summary = known, release.image.digest
        record = self._journal.record
        record.release, record.release_changed = release, changed
        state = "released and signed" if changed else "release as before"
        self._journal.progress.say(f"  {state}: {release.version} {release.image.digest}")
        return release

    async def deploy(self, release: Release, *, to: str, smoke: Smoke | None = None) -> Deployment:
        """Deploy a release: start it, wait for its health, shift traffic, smoke test.

        Args:
            release: what to deploy; its image is pulled by digest.
            to: the environment's name in the configuration.
            smoke: gets the environment's URL and raises `SmokeFailed` to have it rolled back;
                without one, the environment's `smoke_path` must answer 200 from this very digest.

        Returns:
            The way for containers to what now runs there.

        Raises:
            RolledBack: it failed, and what ran before runs again.
            ConfigError: the pipeline may not deploy there, or not yet.
        """
        self._refuse_for_pull_requests("is deployed nowhere")
        # Here and not above: a pipeline that deploys nothing needs none of it.
        from buildonce import delivery

        environment = self.config.environment(to)
        self._current_stage(f"the deployment to {to}")
        if environment.deploy == "on-demand":
            raise ConfigError(
                f"{self.config.where('environments', to, 'deploy')}: {to} is deployed on demand, "
                "never by a pipeline",
                remedy=f"buildonce deploy {to}",
            )
        if environment.after is not None:
            before = await self._ledger.current(environment.after)
            if before is None or before.digest != release.image.digest:
                raise ConfigError(
                    f"{to} comes after {environment.after}, where this release does not run",
                    remedy=f'await pipeline.deploy(release, to="{environment.after}") before it',
                )
        if smoke is None:
            smoke = delivery.http_smoke(environment.smoke_path, digest=release.image.digest)
        progress = self._journal.progress
        with _tracer.start_as_current_span(
            f"deploy {to}",
            attributes={"cicd.pipeline.task.name": to, "cicd.pipeline.task.type": "deploy"},
        ):
            rollout = await delivery.deploy(
                release,
                environment,
                project=self.config.project.name,
                ledger=self._ledger,
                run=self.run,
                smoke=smoke,
                progress=lambda line: progress.say(f"  {line}"),
            )
        # Where nothing changed, what runs there was brought by the rollout that the step names.
        found = [step for step in rollout.steps if step.name == "unchanged"]
        changed = not found
        brought_by = rollout.id if changed else found[-1].data["rollout"]
        self._journal.record.rollouts.append(
            RolloutRecord(to, environment.url, changed, release.image.digest)
        )
        port = environment.local_port
        forward = dagger.PortForward(backend=port, frontend=port)
        return Deployment(
            service=dag.host().service([forward]),
            port=port,
            identity=f"{release.image.digest} {brought_by}",
        )

    async def _record_release(self, release: Release) -> None:
        """Have the release in this machine's ledger: it may have been cut on another one."""
        known = await self._ledger.release(release.version)
        if known is None or Release.from_json({**known}) != release:
            data = {**release.to_json(), "committed_at": self.revision.committed.isoformat()}
            await self._journal.append("release.created", data)

    def _refuse_for_pull_requests(self, what: str) -> None:
        if self.pull_request:
            raise BuildonceError(
                f"a pull request {what}",
                remedy="end the pipeline before: if pipeline.pull_request: return",
            )

    def _current_stage(self, what: str) -> StageRecord:
        if self._stage is None:
            raise BuildonceError(
                f"{what} belong to a stage, and none is running",
                remedy='async with pipeline.stage("commit"): …',
            )
        return self._stage

    def _note_unused_options(self) -> None:
        """A table of options that no check took is most likely misspelt."""
        names = {c.name for stage in self._journal.record.stages for c in stage.checks}
        for name in self.config.checks:
            if name not in names:
                where = self.config.where("checks", name)
                self._journal.record.notes.append(f"{where}: no check is called {name!r}")
        for number, waiver in enumerate(self.config.waivers):
            if waiver.check not in names:
                where = self.config.where("waivers", str(number))
                self._journal.record.notes.append(f"{where}: no check is called {waiver.check!r}")


def _note_problem(error: BaseException, journal: Journal | None, record: RunRecord) -> None:
    if record.exit_code:
        return
    if isinstance(error, SystemExit | KeyboardInterrupt):
        record.exit_code = ExitCode.INTERRUPTED
        record.problem = Problem("interrupted")
        return
    problem, record.exit_code, keep = explain(error)
    record.problem = problem
    if consequence := _consequence(record):
        problem.message += f"\n{consequence}"
    if keep and journal is not None:
        journal.debug(error)
        if problem.remedy is None:
            problem.remedy = "see out/debug.log for the traceback"


def _consequence(record: RunRecord) -> str:
    """What did not happen because of the problem: whoever reads it wonders."""
    if record.release is None:
        return "nothing was pushed, nothing was deployed" if record.stages else ""
    there = ", ".join(rollout.environment for rollout in record.rollouts)
    return f"the release is pushed, and deployed to {there or 'no environment'}"


def _actor() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container with a user id that has no name
        return "unknown"
