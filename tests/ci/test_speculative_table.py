"""The tables of a speculative run: groups in columns, loops beside speed-ups, none of figures that are not there."""

import polars as pl

from ci.bench import speculative_table
from tasks.spec_groups import GROUPS


def rows(metric, values, method="m"):
    return [
        {
            "method": method,
            "workload": f"{group}x64n20f",
            "metric": metric,
            "phase": "",
            "value": v,
            "low": None,
            "high": None,
        }
        for group, v in zip(GROUPS, values, strict=True)
    ]


def test_a_row_holds_the_groups_and_their_geometric_mean():
    frame = pl.DataFrame(rows("speedup_total_no_loops", [1.0, 4.0] * (len(GROUPS) // 2)))
    head, _, line = speculative_table.table(frame, "speedup_total_no_loops", forced=True)
    assert head == "| speedup_total_no_loops | " + " | ".join(GROUPS) + " | geometric mean |"
    assert line == "| m | " + " | ".join(["1.00", "4.00"] * (len(GROUPS) // 2)) + " | 2.00 |"


def test_a_group_where_every_text_loops_has_no_speed_up_without_loops():
    frame = pl.DataFrame(
        rows("loop_share", [1.0] + [0.0] * (len(GROUPS) - 1)) + rows("speedup_total_no_loops", [2.0] * len(GROUPS))[1:]
    )
    shares = speculative_table.table(frame, "loop_share", forced=True)[2]
    speed = speculative_table.table(frame, "speedup_total_no_loops", forced=True)[2]
    assert shares.startswith("| m | 1.00 | 0.00 |") and speed.startswith("| m |  | 2.00 |") and speed.endswith("|  |")


def test_tables_of_figures_that_no_record_has_are_left_out(monkeypatch, capsys):
    frame = pl.DataFrame(rows("speedup_total", [2.0] * len(GROUPS)))
    monkeypatch.setattr(speculative_table, "figures", lambda folder: frame)
    monkeypatch.setattr(speculative_table.sys, "argv", ["table", "results"])
    speculative_table.main()
    shown = capsys.readouterr().out
    assert "| speedup_total |" in shown and "no_loops" not in shown and "loop_share" not in shown
