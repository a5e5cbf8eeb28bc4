"""docs/openapi.yaml against the server: the document agrees with itself, every answer of the run fitted, nothing was left out."""
import pytest

from openapi import SPEC

# what no run meets, and why
UNSEEN_OPERATIONS = {}
UNSEEN_MEMBERS = {}
UNSEEN_PARAMETERS = {}
UNSEEN_CODES = {}


@pytest.mark.parametrize("operation", SPEC.operations, ids=lambda o: o.name)
def test_the_codes_of_an_operation_are_faults_with_documented_statuses(operation):
    assert operation.codes, f"{operation.name} has no x-codes: list the codes its refusals may bear"
    unknown = operation.codes - set(SPEC.faults)
    assert not unknown, f"not in fault_table.h: {unknown}"
    hidden = {c for c in operation.codes if SPEC.faults[c][1] == "HIDDEN"}
    assert not hidden, f"no peer is told {hidden}"
    for code in operation.codes:
        assert str(SPEC.faults[code][0]) in operation.responses or "default" in operation.responses, (operation.name, code, SPEC.faults[code][0])
    for status in set(operation.responses) - {"default"}:
        assert status < "400" or any(SPEC.faults[c][0] == int(status) for c in operation.codes), f"{operation.name}: no code bears {status}"


def test_every_fault_that_is_told_belongs_to_an_operation():
    told = {code for code, (_, seen) in SPEC.faults.items() if seen != "HIDDEN"}
    documented = set().union(*(o.codes for o in SPEC.operations), SPEC.anywhere)
    assert told - documented == set(), "add them to x-codes of the operations that answer with them"


# conftest.py runs these two last, and only when the whole folder was collected

def test_last_every_answer_of_the_run_fitted():
    assert SPEC.violations == []


def test_last_nothing_documented_was_left_unseen():
    left = {"operations": (SPEC.unseen_operations(), UNSEEN_OPERATIONS), "members": (SPEC.unseen_members(), UNSEEN_MEMBERS),
            "parameters": (SPEC.unseen_parameters(), UNSEEN_PARAMETERS), "codes": (SPEC.unseen_codes(), UNSEEN_CODES)}
    wrong = [f"{what}: {one} was met by no test: test it, or say in UNSEEN_{what.upper()} why not"
             for what, (unseen, allowed) in left.items() for one in sorted(unseen - set(allowed))]
    wrong += [f"{what}: {one} was met: remove it from UNSEEN_{what.upper()}"
              for what, (unseen, allowed) in left.items() for one in sorted(set(allowed) - unseen)]
    assert not wrong, "\n".join(wrong)
