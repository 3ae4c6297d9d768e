"""Which raw packages a pipeline works on, and how a step divides them into sub-groups.

`rules` parses and checks what people wrote, `keys` names sub-groups (both pure); `compile` makes SQL of it.
"""
