"""`python -m benchmarks`: measure, print the table, write the record, the page and the picture."""

import argparse
import json
import sys
from pathlib import Path
from time import monotonic

from rich.console import Console

from benchmarks import lengths_plot, machine, plot, report
from benchmarks.figures import FIGURES
from benchmarks.runner import run

RESULTS = Path(__file__).parent / "results"


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").partition(":")[2]
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of every side (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="how often the sides take turns (default 3)")
    parser.add_argument(
        "--quick", action="store_true", help="skip figures that take minutes (mostly those of transformers)"
    )
    parser.add_argument(
        "--only", metavar="WORD", default="", help="only figures with this word in title or model"
    )
    parser.add_argument("--name", help="file name of the results (default: cpu-N-threads, quick-N-threads)")
    return parser.parse_args()


def main() -> int:
    """Run the benchmarks; return 1 if a measurement failed, 130 if interrupted."""
    args, start = arguments(), monotonic()
    # A log file has no width: use one that fits the table.
    console = Console(width=None if sys.stdout.isatty() else 130)
    partial = args.quick or args.only
    name = args.name or f"{'quick' if partial else 'cpu'}-{args.threads}-threads"
    described = machine.describe(args.threads)
    for what, value in described.items():
        console.print(f"[bold]{what}[/]: {value}", highlight=False)
    figures = [figure for figure in FIGURES if args.only in f"{figure.title} {figure.model}"]
    try:
        with console.status("starting") as status:

            def announce(text: str) -> None:
                line = f"{monotonic() - start:4.0f} s  {text}"
                if console.is_terminal:
                    status.update(line)
                else:
                    console.print(line, highlight=False)

            outcome = run(figures, args.threads, args.rounds, args.quick, announce)
    except KeyboardInterrupt:
        console.print("interrupted; no results written")
        return 130
    console.print(report.table(outcome))
    for job, reason in outcome.failures.items():
        console.print(f"[red]failed[/]: {job}: {reason}", highlight=False)
    RESULTS.mkdir(exist_ok=True)
    cpu = described["CPU"].partition(";")[0]
    subtitle = f"{cpu}; {args.threads} threads; logarithmic scale; hatched where behind"
    pictures = [f"{name}.png", f"{name}-lengths.png"]
    plot.draw(outcome, RESULTS / pictures[0], subtitle)
    if not lengths_plot.draw(outcome, RESULTS / pictures[1], f"{cpu}; {args.threads} threads"):
        pictures.pop()
    (RESULTS / f"{name}.json").write_text(json.dumps(report.record(outcome, described), indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(report.markdown(outcome, described, pictures))
    console.print(f"{monotonic() - start:.0f} s; results in {RESULTS / name}.*", highlight=False)
    return int(bool(outcome.failures))


if __name__ == "__main__":
    sys.exit(main())
