"""The baseline is the subject's own decoder."""

from methods.speculative.ar import Ar


def test_the_subject_is_yielded_as_it_is(tiny):
    with Ar().apply(tiny) as plain:
        assert plain is tiny


def test_all_checks_hold(tiny):
    for check in Ar().checks(tiny):
        check.run()
