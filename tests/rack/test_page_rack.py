"""The web page of a real rack: a host that sleeps is looked at, woken by a form, and seen to come."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from sleeping_site import ANN_KEY, WEB_PORT, Site

from labctl.lab.processes import wait_until

pytestmark = pytest.mark.rack


@pytest.fixture
def browser(site: Site, armed: object) -> Iterator[httpx.Client]:
    """Somebody on the network with a key that acts."""
    address = f"http://{site.hub.address}:{WEB_PORT}"
    with httpx.Client(base_url=address, trust_env=False, headers={"Origin": address}, timeout=20) as client:
        assert client.get("/").status_code == 401
        assert client.post("/session", data={"key": ANN_KEY}).status_code == 303
        yield client


def test_a_form_on_the_page_wakes_a_host_that_slept_on_while_it_was_looked_at(
    site: Site, browser: httpx.Client
) -> None:
    box = site.box.name
    site.awake()
    site.say("suspend", box, "--why", "it is looked at")
    assert wait_until(lambda: site.is_in("asleep"), within=60), site.explain(site.box)
    heard = len(site.rack.packets(box))
    for path in ("/", f"/hosts/{box}", f"/hosts/{box}/wake"):
        text = browser.get(path).text
    assert len(site.rack.packets(box)) == heard
    found = re.search(r'name="token" value="([^"]+)"', text)
    assert found is not None
    done = browser.post(f"/hosts/{box}/wake", data={"token": found[1], "why": "from the page"})
    assert done.status_code == 200, done.text
    assert wait_until(lambda: site.is_in("ready"), within=60), site.explain(site.box)
    page = browser.get("/").text
    assert 'data-mode="ready"' in page.partition(f'id="host-{box}"')[2].partition("</article>")[0]
    # Whose key it was stands in the log, and that the page says so.
    assert "ann by labctl-web" in str(site.say("events", box))


def test_a_second_apply_changes_nothing(site: Site) -> None:
    assert site.apply("web", site.hub) == {site.hub.name: 0}
