"""From a suite to records: planning, isolation, execution, resume."""
