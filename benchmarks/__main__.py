"""Print the table of ratios and write benchmarks/results.json: OMP_NUM_THREADS=2 python -m benchmarks."""

import json
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import adamas
from benchmarks import tensors, work


def main() -> None:
    versions = f"adamas {adamas.__version__}, {adamas.engine}; torch {torch.__version__}; numpy {np.__version__}"
    table = Table(
        f"float32 AdamW, {adamas.get_num_threads()} threads", "beside", "faster by", "expected", title=versions
    )
    for column in table.columns[2:]:
        column.justify = "right"
    results = []
    for make in [*work.rows(), *tensors.rows()]:
        row = make()
        row.measure()
        colour = "green" if row.ratio >= row.target else "red"
        table.add_row(row.work, row.peer_name, f"[{colour}]{row.ratio:.2f}x[/]", f">= {row.target:.2f}x")
        results.append({"work": row.work, "beside": row.peer_name, "ratio": row.ratio, "expected": row.target})
        del row
    Console().print(table)
    path = Path(__file__).parent / "results.json"
    path.write_text(json.dumps({"versions": versions, "rows": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
