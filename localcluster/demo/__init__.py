"""`make demo`: the main job, told step by step in a terminal on real parts.

`narrator` prints what was typed and what came back and keeps the score; the chapters are the story;
`__main__` sets the stage and cleans up. Whether gpudetour works is decided by what the API server
and the containers say, never by our own processes' word.
"""
