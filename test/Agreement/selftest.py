"""The comparison can fail: a mistake in the oracle is found and reduced."""

import sys

import oracle
from agreement import PASSES, Case, batch, fails, reduce


def leaves_other_contents(tool):
    """What no op reads is still compared, in the host's cache."""
    case = Case(0)
    case.run.hosts = [version.copy() for version in case.run.hosts]
    case.run.hosts[-1].lengths += 1
    why = fails(tool, case, [])
    assert why and "in host cache" in why, why


def main(tool):
    right = oracle.Version.attend

    def sees_one_more(self, layer, sequence, q, first, scale, softcap, window, *rest):
        wider = window + 1 if window else 0
        return right(self, layer, sequence, q, first, scale, softcap, wider, *rest)

    oracle.Version.attend = sees_one_more
    count, drawn, failures, _ = batch(tool, range(12))
    assert failures, f"none of {count} programs shows a window that is one too wide"
    seed, name, _ = failures[0]
    pipeline = [PASSES[name]] if name else []
    case = Case(seed)
    before = sum(1 for _ in case.program.walk())
    small = reduce(tool, case, pipeline, tries=60)
    after = sum(1 for _ in small.program.walk())
    assert after < before, f"still {after} ops of {before}"
    assert fails(tool, small, pipeline), "the reduced program agrees"
    oracle.Version.attend = right
    leaves_other_contents(tool)
    assert not fails(tool, Case(seed), pipeline), "the right oracle disagrees, too"
    found = len({seed for seed, *_ in failures})
    print(f"found in {found} of {count} programs; {before} ops became {after}")


if __name__ == "__main__":
    main(sys.argv[1])
