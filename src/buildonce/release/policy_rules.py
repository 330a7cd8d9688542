"""The rules of policies: each asks one kind of question and answers it in lines.

A rule that its policy does not demand gives no line. What a rule needs and does not find is
"missing"; what it finds and cannot understand is an "error". Neither lets a release in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from buildonce.release.policy import Case, Line
from buildonce.release.policy_evidence import (
    licences,
    provenance,
    sast,
    sboms,
    secrets,
    tests,
    vulnerabilities,
)
from buildonce.release.policy_judging import AGAIN, SKEW, LineOf, day, listed, span_of
from buildonce.release.policy_status import standing_of

Rule = Callable[[Case], Iterator[Line]]


def signature(case: Case) -> Iterator[Line]:
    """The image's digest is signed by whom the policy trusts."""
    verified = case.dossier.verified
    rule = case.policy.signature
    wanted = (
        "a signature by "
        + " or ".join([*map(str, rule.keys), *(i.subject for i in rule.identities)])
        if rule.keys or rule.identities
        else "a signature by the pipeline's key"
    )
    line = LineOf("signature", wanted)
    if verified.image.digest != case.release.image.digest:
        yield line(
            "error",
            f"the evidence is of {verified.image.short}, the release is {case.release.image.short}",
            "report this: it must not happen",
        )
    elif verified.signatures:
        by = sorted({item.signed_by for item in verified.signatures})
        yield line("passed", f"signed by {listed(by)}")
    elif refused := [item for item in verified.refused if item.what == "signature"]:
        yield line(
            "failed",
            listed([item.message for item in refused]),
            "find out who wrote that signature; a signature by the right key comes from "
            + AGAIN.removeprefix("run "),
        )
    else:
        yield line("missing", "the digest is not signed", AGAIN)


def image(case: Case) -> Iterator[Line]:
    """The image is in the registry, and so is that of each platform."""
    line = LineOf("image", "the image, and that of each of its platforms")
    missing = case.dossier.incomplete
    if missing is None:
        yield line("error", "nobody looked whether it is there", "report this: it must not happen")
    elif missing:
        yield line("missing", missing, "restore it, or release the commit again as a new version")
    else:
        yield line("passed", f"{case.release.image.short} is there")


def record(case: Case) -> Iterator[Line]:
    """The signed record is there, says the same, and all that it lists is there."""
    if not case.policy.release_record:
        return
    line = LineOf("release record", "a signed record that equals the release")
    recorded = case.dossier.record
    if recorded is None:
        yield line("missing", case.dossier.record_problem or "there is no record", AGAIN)
        return
    release, said = case.release.to_json(), recorded.release.to_json()
    # The same image may lie in another registry: evidence crosses accounts with it.
    differing = [key for key in release if key != "repository" and release[key] != said.get(key)]
    if differing:
        yield line(
            "failed",
            "it differs: "
            + "; ".join(f"{key} is {said.get(key)}, not {release[key]}" for key in differing),
            "deploy what the record says, by its version: `buildonce release list`",
        )
        return
    yield line("passed", f"{release['version']}, {len(recorded.evidence)} pieces of evidence")
    present = {item.digest for item in case.dossier.verified.attestations}
    refused = {item.digest: item for item in case.dossier.verified.refused}
    for item in recorded.evidence:
        if item.digest in present:
            continue
        named = item.name or item.type
        bad = refused.get(item.digest)
        yield Line(
            f"evidence {named}",
            "failed" if bad else "missing",
            bad.message if bad else f"the record lists it ({item.digest[:19]}), and it is gone",
            "every piece of evidence that the record lists",
            "somebody took it away or changed it; " + AGAIN,
        )


def status(case: Case) -> Iterator[Line]:
    """Nothing withdrew it since, and nobody hides that something did."""
    standing = standing_of(
        case.dossier.verified,
        environment=case.environment,
        remembered=case.dossier.remembered,
    )
    limit = case.policy.status_max_age
    line = LineOf(
        "status",
        f"not withdrawn, found good within {span_of(limit)}" if limit else "not withdrawn",
    )
    rescan = f"buildonce rescan {case.release.version}"
    bad = False
    for said in standing.withdrawals:
        bad = True
        status_ = said.status
        because = listed([str(item) for item in status_.advisories])
        yield line(
            "failed",
            f"withdrawn on {day(status_.at)} by {status_.by}: {status_.reason}"
            + (f": {because}" if because else ""),
            "release a version that has the fix; or, when it no longer holds: "
            f"buildonce release reinstate {case.release.version} --reason …",
        )
    if standing.removed:
        bad = True
        yield line(
            "error",
            f"a status was removed from the registry: {listed(sorted(standing.removed))}",
            f"find out who did that and what it said (`buildonce history`, the ledger); {rescan}",
        )
    for problem in standing.unreadable:
        bad = True
        yield line("error", problem, "read it with a newer buildonce")
    if bad:
        return
    if limit is None:
        yield line("passed", "not withdrawn")
        return
    cut = case.dossier.record.release.created if case.dossier.record else None
    asserted = [at for at in (standing.good_at, cut) if at is not None]
    newest = max(asserted, default=None)
    if newest is None:
        yield line("missing", "nobody found it good yet", rescan)
    elif newest > case.now + SKEW:
        yield line("error", f"found good on {day(newest)}, in the future", "set the clocks right")
    elif case.now - newest > limit:
        yield line("failed", f"found good {span_of(case.now - newest)} ago", rescan)
    else:
        yield line("passed", f"not withdrawn; found good {span_of(case.now - newest)} ago")


def soak(case: Case) -> Iterator[Line]:
    """This digest has run elsewhere for long enough."""
    for environment, least in case.policy.verified_in.items():
        line = LineOf(f"verified in {environment}", f"has run there for {span_of(least)}")
        ran = case.dossier.ran.get(environment)
        if ran is None:
            yield line(
                "missing",
                f"this digest has not run in {environment}",
                f"buildonce deploy {environment} --release {case.release.version}",
            )
        elif ran < least:
            yield line("failed", f"for {span_of(ran)}", f"wait for {span_of(least - ran)}")
        else:
            yield line("passed", f"for {span_of(ran)}")


def withdrawn_by_hand(case: Case) -> Iterator[Line]:
    """Nobody has said that this release must not run; what an advisory said does not count.

    A flaw that became known is a reason not to go forward. It was there while the release ran, and
    to keep a broken release running instead of it would help nobody.
    """
    line = LineOf("status", "not withdrawn by hand")
    standing = standing_of(case.dossier.verified, environment=case.environment)
    by_hand = [said for said in standing.withdrawals if not said.status.advisories]
    for said in by_hand:
        yield line(
            "failed",
            f"withdrawn on {day(said.status.at)} by {said.status.by}: {said.status.reason}",
            f"buildonce deploy {case.environment} --release VERSION takes another one; or "
            f"buildonce release reinstate {case.release.version} --reason …",
        )
    if not by_hand:
        known = listed([str(a) for said in standing.withdrawals for a in said.status.advisories])
        yield line("passed", f"not withdrawn by hand; known: {known}" if known else "not withdrawn")


ROLLBACK_RULES: Final[tuple[Rule, ...]] = (signature, withdrawn_by_hand)
"""What is asked of a release that an environment goes back to."""

RULES: Final[tuple[Rule, ...]] = (
    signature,
    image,
    record,
    status,
    provenance,
    tests,
    secrets,
    sast,
    sboms,
    vulnerabilities,
    licences,
    soak,
)
"""In the order in which their lines are shown."""
