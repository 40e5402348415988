# SPDX-License-Identifier: Apache-2.0
"""Remove defences in turn, and report those that no test misses."""

from __future__ import annotations

import argparse
import sys

from imagecache.tests.mutation import mutations, table
from imagecache.tests.mutation.runner import Copy


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD",
                        help="only mutations whose name has a word")
    parser.add_argument("--list", action="store_true",
                        help="list the mutations, and run no test")
    parser.add_argument("--every", type=int, default=1, metavar="N",
                        help="only each Nth")
    options = parser.parse_args()
    chosen = [each for each in mutations() if not options.words
              or any(word in each.name for word in options.words)
              ][::options.every]
    if options.list:
        print(*(each.name for each in chosen), sep="\n")
        return 0
    survived = 0
    with Copy() as copy:
        for tests in {each.tests for each in chosen}:
            failure = copy.failure(tests)
            if failure:
                sys.exit(f"with all defences in place, {failure}")
        for mutation in chosen:
            with copy.without(mutation):
                noticed = copy.failure(mutation.tests) is not None
            spared = table.SPARED.get(mutation.name)
            print("noticed " if noticed else "SPARED  " if spared
                  else "SURVIVED", mutation.name, spared or "", flush=True)
            survived += not noticed and not spared
    print(f"{len(chosen)} defences removed, {survived} not covered by tests")
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
