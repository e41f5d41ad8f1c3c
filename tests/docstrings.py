"""The examples of docstrings that need a package which is not always there."""

import doctest


def run_skipped_examples(function):
    """Run a docstring's examples, also those that are marked to be skipped; return how many."""
    finder = doctest.DocTestFinder(recurse=False)
    (test,) = finder.find(function, globs={})
    for example in test.examples:
        example.options.clear()
    results = doctest.DocTestRunner().run(test)
    assert results.failed == 0
    return results.attempted
