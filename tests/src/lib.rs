//! Nothing but a home for the tests in `tests/tests`: one binary per tier, against real processes.
