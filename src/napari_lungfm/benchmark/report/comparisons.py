"""Which differences between methods the cases can show."""

from dataclasses import dataclass

import pandas as pd

from napari_lungfm.benchmark.report.columns import number
from napari_lungfm.evaluation.prompt_protocols import NO_PROMPTS
from napari_lungfm.evaluation.statistics import RankStability, compare_all, rank_stability

LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Family:
    """Methods of one cohort under one prompt protocol, compared pair by pair.

    ``pairs`` is what `evaluation.statistics.compare_all` returned with ``cohort`` and
    ``protocol`` before it, ``ranks`` what `rank_stability` returned.
    """

    cohort: str
    protocol: str
    pairs: pd.DataFrame
    ranks: RankStability

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
    return Family(cohort, protocol, pairs, rank_stability(table))


def pairs_frame(found: list[Family]) -> pd.DataFrame:
    """Return the pairs of all families as one table."""
    if not found:
        return pd.DataFrame(columns=["cohort", "protocol", "method_a", "method_b"])
    return pd.concat([family.pairs for family in found], ignore_index=True)


def _small(p: float) -> str:
    return number(p, 4) if p >= 1e-3 else f"{p:.1e}".replace("e-0", "e-")
