"""Print the tables and write benchmarks/results.json: make bench, or OMP_NUM_THREADS=2 python -m benchmarks --help."""

import argparse
import gc
import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import adamas
from benchmarks import accuracy, checkpoints, family, peers, sparse, table, tuning, work
from benchmarks.timing import Ratio

RESULTS = Path(__file__).parent / "results.json"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="adamas beside its peers, as ratios")
    parser.add_argument("--quick", action="store_true", help="a few rows with few pairs, in less than a minute")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the cost per parameter against the size")
    parser.add_argument("--only", metavar="TEXT", help="only the rows of the second table that contain this")
    return parser.parse_args()


def measured_rows(given: argparse.Namespace, progress: Progress) -> list[tuple[work.Row, Ratio]]:
    rows = [*work.ROWS, *sparse.ROWS, *checkpoints.ROWS, *tuning.ROWS, *family.rows()]
    rows = [row for row in rows if given.only is None or given.only in f"{row.work} {row.beside}"]
    rows = [row for row in rows if (row.quick or not given.quick) and find_spec(row.package)]
    found = []
    for row in progress.track(rows, description="particular work"):
        found.append((row, row.measured(9 if given.quick else None)))
        gc.collect()
    return found


def rows_table(found: list[tuple[work.Row, Ratio]]) -> Table:
    rows = Table("work", "beside", "faster by", "aimed at", title="particular work")
    for row, ratio in found:
        colour = "green" if ratio.median >= row.expected else "red"
        rows.add_row(row.work, row.beside, f"[{colour}]{ratio}[/]", f">= {row.expected:.2f}x")
    return rows


def main() -> None:
    given, console = options(), Console()
    warnings.simplefilter("ignore")  # of peers
    torch.set_num_threads(adamas.get_num_threads())
    versions = f"adamas {adamas.__version__}, {adamas.engine}, {adamas.get_num_threads()} threads; torch "
    versions += f"{torch.__version__}; numpy {np.__version__}"
    found, missing = peers.available()
    results: table.Results = {}
    record: dict[str, Any] = {"versions": versions, "missing": missing}
    with Progress(console=console, transient=True) as progress:
        rows = measured_rows(given, progress)
        if given.only is None:
            task = progress.add_task("sizes and peers", total=None)
            for name, peer, ratio in table.measured(found, given.quick):
                results.setdefault(name, {})[peer] = ratio
                progress.update(task, description=f"{name}, {peer}")
    for line in missing:
        console.print(line)
    console.print(rows_table(rows))
    record["rows"] = [{"work": r.work, "beside": r.beside, "expected": r.expected, **q._asdict()} for r, q in rows]
    if given.only is None:
        console.print(*table.as_tables(results, f"how many times as long peers take; {versions}"))
        off = accuracy.deviations(found)
        spacings = Table("after 200 steps", "median", "largest", title="spacings of float32 from float64")
        for name, (median, largest) in off.items():
            spacings.add_row(name, f"{median:.2f}", f"{largest:.0f}")
        console.print(spacings)
        record["peers"] = {name: {peer: q._asdict() for peer, q in row.items()} for name, row in results.items()}
        record["spacings"] = off
    if given.plot:
        table.plot(results, given.plot)
        console.print(f"drawn: {given.plot}")
    if not given.quick and given.only is None:
        RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
