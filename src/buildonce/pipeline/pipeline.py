"""The pipeline: stages one after another, checks side by side, one release, and its deployments."""

from __future__ import annotations

import gc
import getpass
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import anyio
import dagger
from dagger import dag
from opentelemetry import trace

from buildonce.config import Config, StageConfig
from buildonce.errors import BuildonceError, ExitCode
from buildonce.ledger import Ledger, new_run_id
from buildonce.pipeline.budget import Budget
from buildonce.pipeline.checks import Checks, Running
from buildonce.pipeline.errors import gate_error, note_problem
from buildonce.pipeline.history import History, read_history
from buildonce.pipeline.journal import Journal
from buildonce.pipeline.options import unused_options
from buildonce.pipeline.pull_request import asked_for_pull_request
from buildonce.pipeline.releasing import Build, Releasing
from buildonce.pipeline.signals import until_signal
from buildonce.pipeline.stage import run_stage
from buildonce.release import Release, Revision, read_revision
from buildonce.report import (
    Progress,
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
    from buildonce.delivery.waves import To
    from buildonce.pipeline.deploying import AfterWave

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
        self._budget = Budget(None)

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
        # The modules that are loaded now stay to the end, and are many (`dagger` alone has some
        # 90,000 objects): searching them for garbage takes 0.1 s each time, and 0.25 s at the exit.
        gc.freeze()
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
                try:
                    # Signals are heard before the ledger has the run: none is left without an end.
                    async with until_signal(journal.progress.say):
                        await journal.append(
                            "run.started",
                            {
                                "pipeline": config.project.name,
                                "revision": revision.commit,
                                "version": revision.version,
                                "actor": _actor(),
                            },
                        )
                        async with connect():
                            with _span(record):
                                yield pipeline
                                record.notes += unused_options(config, record)
                except BaseException as error:
                    note_problem(error, journal, record)
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
            note_problem(error, journal, record)
        record.seconds = time.monotonic() - began
        if journal is not None:
            try:
                await anyio.to_thread.run_sync(write_reports, record, journal.out)
            except OSError as error:
                note_problem(error, None, record)
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
            budget: how long it may take, in place of the configured time; waiting for people does
                not count.
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
        self._budget = Budget(budget or configured.budget)
        async with run_stage(
            name, self._journal, budget=self._budget, warn=warn or configured.warn
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

    async def deploy(
        self,
        release: Release,
        *,
        to: To,
        smoke: Smoke | None = None,
        after_wave: AfterWave | None = None,
        bake: timedelta | None = None,
    ) -> Deployment:
        """Deploy a release: start it, wait for its health, shift traffic, smoke test, bake.

        All environments stay or go back together. While a person is awaited, the stage's budget
        stands still.

        Args:
            release: what to deploy; its image is pulled by digest.
            to: name of an environment or of `[waves]`; or waves as nested lists of environments:
                those of a wave side by side, the next wave after it.
            smoke: gets an environment's URL and raises `SmokeFailed` to have it rolled back;
                without one, the environment's `smoke_path` must answer 200 from this very digest.
            after_wave: tests of each wave, once all its traffic is on the release: gets its
                deployments; what it raises brings all environments back.
            bake: how long to watch after each wave but the last, in place of the configured time.

        Returns:
            The way for containers to what now runs there; of several, to the last one.

        Raises:
            PolicyDenied: a policy keeps it out. ApprovalRefused: a person. WindowClosed: not now.
            RolledBack: it failed, and what ran before runs again, everywhere.
            ConfigError, OutOfOrder: the pipeline may not deploy there, or not yet.

        Example:
            async def tests(wave):
                async with pipeline.parallel() as checks:
                    for deployment in wave:
                        checks.start(smoke_test, deployment, python)

            await pipeline.deploy(release, to=[["pilot"], ["eu", "us"]], after_wave=tests)
        """
        self._refuse_for_pull_requests("is deployed nowhere")
        self._current_stage("deployments")
        # Here and not above: a pipeline that deploys nothing needs none of it.
        from buildonce.pipeline.deploying import Deploying

        deploying = Deploying(self.config, self._ledger, self._journal, actor=_actor())
        return await deploying.deploy(
            release,
            to,
            smoke=smoke,
            after_wave=after_wave,
            bake=bake,
            awaiting=self._budget.paused,
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


def _span(record: RunRecord) -> AbstractContextManager[object]:
    return _tracer.start_as_current_span(
        record.pipeline,
        attributes={"cicd.pipeline.name": record.pipeline, "cicd.pipeline.run.id": record.run},
        record_exception=False,
    )


def _actor() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container with a user id that has no name
        return "unknown"
