"""The run store in a browser: experiments, live curves with seeds as intervals, comparisons, configurations, logs.

Read-only. Nothing is fetched from the network, and whatever a run left behind, half written or of an older version, is
shown as far as it can be read.

    reading.py      files that others may be writing
    watch.py        what lies in the run folders now, read anew only where it changed
    arms.py         runs that differ in their seed alone, and how they are called and drawn
    curves.py       training curves, thinned, over seeds
    comparison.py   evaluations by context, differences of configurations
    views.py        what each address shows, as JSON
    server.py       addresses, headers, who may ask
    static/         the pages: HTML, CSS and JavaScript without a build step
"""

from __future__ import annotations

from jaxgpt.experiment.serve.server import Server, serve

__all__ = ["Server", "serve"]
