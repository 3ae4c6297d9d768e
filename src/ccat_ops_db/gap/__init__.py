"""Which sub-groups of which steps need a run, and why: kept up to date in SQL, at a cost in proportion to the change.

`steps` says what is wanted, `members` divides raw packages into sub-groups, `statements` runs what works out facts,
decisions and readiness (`sql/`), `changes` is the inbox, and `evaluation` does all of that in order for one pipeline.
`telling` reads the result, and `planned` keeps what would be run.
"""
