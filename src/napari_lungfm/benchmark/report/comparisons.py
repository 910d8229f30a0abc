"""Which differences between methods the cases can show."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from napari_lungfm.benchmark.report.columns import number
from napari_lungfm.evaluation.prompt_protocols import NO_PROMPTS
from napari_lungfm.evaluation.statistics import RankStability, compare_all, rank_stability

LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Family:
    """Methods of one cohort under one prompt protocol, compared pair by pair.

    ``pairs`` is what `evaluation.statistics.compare_all` returned with ``cohort`` and
    ``protocol`` before it, ``ranks`` what `rank_stability` returned, ``ranked`` the cases that it
    ranks over: those with a Dice of every method.
    """

    cohort: str
    protocol: str
    pairs: pd.DataFrame
    ranks: RankStability
    ranked: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """What can be shown at all with this many cases, and what was shown."""
        pairs = self.pairs
        n = int(pairs["n"].max()) if len(pairs) else 0
        if n == 0:
            return "No two methods were scored on the same case: nothing can be compared."
        smallest = float(pairs["smallest_possible_p"].min())
        reachable = float(pairs["smallest_possible_p_holm"].min())
        text = (
            f"With {n} paired case{'s' if n != 1 else ''} the smallest p value that the test can "
            f"give is {_small(smallest)}; Holm's correction for {len(pairs)} "
            f"pair{'s' if len(pairs) != 1 else ''} makes it {_small(reachable)}. "
        )
        if reachable > LEVEL:
            return text + (
                f"No difference could be significant at {LEVEL}, however large: these cases are "
                "too few for this many methods, and a missing significance says nothing."
            )
        shown = int((pairs["p_holm"] <= LEVEL).sum())
        return text + (
            f"{shown} of {len(pairs)} differences {'is' if shown == 1 else 'are'} significant at "
            f"{LEVEL} after correction."
        )


def families(cases: pd.DataFrame) -> list[Family]:
    """Compare the Dice of methods within every cohort and prompt protocol.

    Methods that take no prompts at all (automatic ones) join the family of every protocol of
    their cohort, for their masks do not depend on it.

    Parameters
    ----------
    cases
        `scores.case_scores`, one structure only.
    """
    found = []
    for cohort, own in cases.groupby("cohort", sort=False):
        names = list(dict.fromkeys(own["protocol"]))
        free = [name for name in names if name == NO_PROMPTS]
        prompted = [name for name in names if name != NO_PROMPTS]
        # Without any prompted method the automatic ones are one family among themselves.
        groups = [[name, *free] for name in prompted] or [[name] for name in free]
        for group in groups:
            family = _family(str(cohort), str(group[0]), own[own["protocol"].isin(group)])
            if family is not None:
                found.append(family)
    return found


def _family(cohort: str, protocol: str, cases: pd.DataFrame) -> Family | None:
    order = list(dict.fromkeys(cases["method"]))
    if len(order) < 2:
        return None
    first = cases.drop_duplicates(["method", "case"])  # one automatic method under two names
    table = first.pivot_table(
        index="method", columns="case", values="dice", sort=False, dropna=False
    ).reindex(order)
    pairs = compare_all(table)
    pairs.insert(0, "protocol", protocol)
    pairs.insert(0, "cohort", cohort)
    ranked = tuple(str(case) for case in table.columns[table.notna().all()])
    return Family(cohort, protocol, pairs, rank_stability(table), ranked)


def pairs_frame(found: list[Family]) -> pd.DataFrame:
    """Return the pairs of all families as one table."""
    if not found:
        return pd.DataFrame(columns=["cohort", "protocol", "method_a", "method_b"])
    return pd.concat([family.pairs for family in found], ignore_index=True)


def ranks_frame(found: list[Family]) -> pd.DataFrame:
    """Return the rankings of all families as one table, with Kendall's tau of each."""
    if not found:
        return pd.DataFrame(columns=["cohort", "protocol", "method", "mean", "rank"])
    parts = []
    for family in found:
        table = family.ranks.table.reset_index(names="method")
        table.insert(0, "protocol", family.protocol)
        table.insert(0, "cohort", family.cohort)
        names = ("tau_mean", "tau_low", "tau_high", "n_cases")
        parts.append(table.assign(**{name: getattr(family.ranks, name) for name in names}))
    return pd.concat(parts, ignore_index=True)


def matrix(family: Family) -> list[dict[str, Any]]:
    """Return the significance matrix: a row per method, a cell per method it is compared with.

    Each row has ``method`` and ``cells``: ``None`` on the diagonal, else ``difference`` (median
    of row minus column), ``p`` (Holm), ``better`` (+1 where the row is significantly better, -1
    where it is worse, 0 elsewhere).
    """
    methods = list(dict.fromkeys([*family.pairs["method_a"], *family.pairs["method_b"]]))
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for pair in family.pairs.to_dict("records"):
        a, b, d, p = (pair[k] for k in ("method_a", "method_b", "median_difference", "p_holm"))
        sign = 0
        if p <= LEVEL:
            # The effect size counts where the median is 0, and never disagrees in sign of ranks.
            sign = 1 if pair["effect_size"] > 0 else -1
        cells[a, b] = {"difference": d, "p": p, "better": sign}
        cells[b, a] = {"difference": -d, "p": p, "better": -sign}
    return [
        {"method": row, "cells": [cells.get((row, column)) for column in methods]}
        for row in methods
    ]


def _small(p: float) -> str:
    return number(p, 4) if p >= 1e-3 else f"{p:.1e}".replace("e-0", "e-")
