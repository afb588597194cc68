"""The text, tracebacks and images of outputs, whatever kernels put in them."""

from __future__ import annotations

import base64
from typing import Any

from navi_jupyter.output_text import bundle_text, output_images, outputs_text, traceback_text

PNG = base64.b64encode(b"\x89PNG not really").decode()


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    """Printed text."""
    return {"output_type": "stream", "name": name, "text": text}


def display(**data: Any) -> dict[str, Any]:
    """A display; ``image_png`` is ``image/png``."""
    return {"output_type": "display_data", "data": {kind.replace("_", "/"): value for kind, value in data.items()}}


ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": ["\x1b[31mline 1", "line 2"]}


def test_pieces_of_one_stream_are_one_text_and_other_outputs_begin_their_own_line() -> None:
    outputs = [stream("50%"), stream("\r100%"), stream("careful", "stderr"), display(text_plain=["4", "2"]), ERROR]
    assert outputs_text(outputs) == "100%\ncareful\n42"
    assert outputs_text(outputs, traceback_limit=100).endswith("\n42\nline 1\nline 2\nValueError: no")


def test_images_and_outputs_without_text_are_named_only_where_that_is_asked_for() -> None:
    outputs = [display(image_png=PNG, text_plain="<Figure>"), display(application_x="?")]
    assert outputs_text(outputs) == ""
    assert outputs_text(outputs, name_images=True) == "[image 1] <Figure>\n[application/x]"


def test_the_html_of_an_object_with_a_default_repr_is_its_text() -> None:
    html = "<style>p {}</style><table><tr><td>a</td><td>1&lt;2</td></tr><tr><td>b</td></tr></table>"
    assert bundle_text({"text/plain": "<mine.Table at 0x7f00>", "text/html": html}) == "a 1<2\nb"
    assert bundle_text({"text/plain": "   a\n0  1", "text/html": html}) == "   a\n0  1"
    assert bundle_text({"text/html": "<b>bold</b>"}) == "bold"


def test_a_long_traceback_keeps_its_end_and_its_error() -> None:
    text = traceback_text({**ERROR, "traceback": ["frame"] * 1000 + ["the line"]}, 200)
    assert len(text) < 300
    assert text.endswith("the line\nValueError: no")


def test_images_are_bounded_in_number_and_size_and_all_are_counted() -> None:
    outputs = [display(image_png=base64.b64encode(bytes([n])).decode()) for n in range(5)]
    outputs += [{"output_type": "display_data", "data": {"image/svg+xml": "<svg/>"}}, display(image_png="no base64: é")]
    first, count = output_images(outputs, limit=3, max_bytes=10)
    assert ([image.content for image in first], count) == ([b"\0", b"\1", b"\2"], 7)
    last, _ = output_images(outputs, limit=3, max_bytes=10, last=True)
    assert [image.content for image in last] == [b"\4"]
    assert output_images([display(image_png=PNG)], limit=1, max_bytes=5) == ([], 1)
