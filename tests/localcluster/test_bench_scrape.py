"""The benchmark of scrapes asks real exporters of the whole fleet, and judges the slowest."""

from __future__ import annotations

from localcluster.bench.scrape import Scraped, measure_scrapes
from localcluster.bench.scrape_report import goals_of


def test_each_process_stands_beside_the_library_with_as_many_series() -> None:
    extender, its_library, agent, the_agents_library = measure_scrapes(scrapes=2)

    assert "1,000 nodes, 8,000 pods" in extender.what
    assert extender.series == its_library.series > 100
    # Five figures, what it is, its health, its holder and how many: nine of each GPU.
    assert agent.series == the_agents_library.series > 8 * 9
    assert all(len(each.times) == 2 and each.size > 0 for each in (extender, agent))


def test_the_slowest_scrapes_of_both_processes_count_together() -> None:
    def scraped(what: str, *times: float) -> Scraped:
        return Scraped(what=what, series=1, size=1, times=times)

    ours = (scraped("extender", 10.0, 150.0), scraped("agent", 40.0, 5.0))
    bare = scraped("client library alone, 1 series", 900.0)
    (goal,) = goals_of([ours[0], bare, ours[1], bare])

    assert (goal.value, goal.limit, goal.met) == (190.0, 200.0, True)
