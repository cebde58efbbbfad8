"""Whom a pretraining may not have seen: no test patient, and no other sample of one."""

from txtlib.cohort import Cohort, CohortError


def check_apart(pretraining: Cohort, *held_out: Cohort) -> None:
    """Raise CohortError if a patient of a pretraining part is also in another part, in whatever sample.

    A test patient's healthy tissue in pretraining would be a leak: it is the same person.
    """
    known = set(pretraining.patients())
    for part in held_out:
        shared = sorted(known.intersection(part.patients()))
        if shared:
            raise CohortError(
                f"{pretraining.name}: {len(shared)} patients of the pretraining part are also held out (the first is "
                f"{shared[0]!r}); split by patient (txtlib.cohort.split), before samples are chosen."
            )
