"""Where evaluations run; an engine drives a session, a session knows no engine."""
