"""`python -m localcluster.fuzz`: reads options, sends the requests, prints what came of them."""

from __future__ import annotations

import itertools
import signal
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import click

from localcluster.fuzz.campaign import Seen, pieces, processors, quiet, run
from localcluster.fuzz.targets import TARGETS
from localcluster.parts.progress import progress_on

_INPUTS = 1_000_000
_SHOWN = 5
_INTERRUPTED = 130


@click.command(context_settings={"show_default": True})
@click.option("--inputs", type=click.IntRange(1), default=_INPUTS, help="Requests for each target.")
@click.option("--seed", type=int, default=1, help="Another seed makes other requests.")
@click.option("--first", type=click.IntRange(0), default=0, help="Number of the first request.")
@click.option(
    "--only", type=click.Choice(list(TARGETS)), multiple=True, help="Ask these targets only."
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=processors(),
    help="With one, everything happens in this process.",
)
def main(inputs: int, seed: int, first: int, only: tuple[str, ...], processes: int) -> None:
    """Send wrong requests to webhook and extender; ends with 1 when an answer is not in order."""
    quiet()
    targets = only or tuple(TARGETS)
    # By turns, so that who stops half-way has seen half of each.
    each = (pieces(target, seed=seed, first=first, inputs=inputs) for target in targets)
    todo = itertools.chain.from_iterable(zip(*each, strict=True))
    # As Ctrl-C: what was seen so far is told.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started, seen, status = time.monotonic(), Seen(), 0
    total, progress = inputs * len(targets), progress_on(sys.stderr)
    try:
        run(todo, seen, total=total, processes=processes, progress=progress)
    except BrokenProcessPool as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        status = _INTERRUPTED
    _show(seen, seconds=time.monotonic() - started)
    sys.exit(1 if seen.failures else status)


def _show(seen: Seen, *, seconds: float) -> None:
    for (target, outcome), count in sorted(seen.outcomes.items()):
        print(f"{target:9} {outcome:22} {count:>9,}")
    total = seen.outcomes.total()
    print(
        f"{total:,} requests in {seconds:.0f} s, {total / seconds:.0f}/s; the slowest answer took "
        f"{seen.slowest * 1e3:.0f} ms; {len(seen.failures)} not in order"
    )
    for failure in seen.failures[:_SHOWN]:
        print(f"\n{failure}")


if __name__ == "__main__":
    main()
