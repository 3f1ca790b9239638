from xml.etree import ElementTree

from p2pnode.interfaces.tui.example import minute
from p2pnode.interfaces.tui.screenshot import render_svg


def test_the_picture_is_an_svg_that_loads_nothing_from_elsewhere() -> None:
    svg = render_svg(list(minute())[-3:], size=(100, 30), keys=["d"])
    ElementTree.fromstring(svg)
    assert "kitchen" in svg
    assert "url(http" not in svg
