"""Two nights at the telescope, played on the real system through its public commands, and checked run by run.

`story` (what happens, what must follow) and `checks` (did it?) are pure; `play` performs the story.
"""
