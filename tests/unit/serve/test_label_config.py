import pytest

from fewseg.serve.label_studio import read_label_config
from fewseg.serve.label_studio_client import StudioSettings
from fewseg.types import DataError

IMAGE = '<Image name="photo" value="$picture"/>'
POLYGONS = '<PolygonLabels name="p" toName="photo"><Label value="a"/></PolygonLabels>'
BRUSH = '<BrushLabels name="b" toName="photo"><Label value="x" alias="y"/><Label value="a"/></BrushLabels>'


def test_a_brush_is_preferred_and_an_alias_is_the_name():
    found = read_label_config(f"<View>{IMAGE}<View>{POLYGONS}</View>{BRUSH}</View>")
    assert (found.from_name, found.to_name, found.key, found.tool) == ("b", "photo", "picture", "brushlabels")
    assert found.labels == ("y", "a")


def test_polygons_serve_where_there_is_no_brush():
    found = read_label_config(f"<View>{POLYGONS}{IMAGE}</View>")
    assert (found.from_name, found.tool, found.labels) == ("p", "polygonlabels", ("a",))


ENTITY = '<!DOCTYPE v [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
BOMB = '<!DOCTYPE v [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not plain XML"),
        ("<View>", "not plain XML"),
        ("\ud800", "not plain XML"),
        (f"{ENTITY}<View>&e;{IMAGE}{BRUSH}</View>", "not plain XML"),
        (f"{BOMB}<View>&b;{IMAGE}{BRUSH}</View>", "not plain XML"),
        (f"<View>{IMAGE}</View>", "<BrushLabels>"),
        (f"<View>{BRUSH}</View>", "<Image>"),
        (f'<View>{IMAGE}<RectangleLabels name="r" toName="photo"/></View>', "RectangleLabels"),
        (f"<View>{IMAGE}{BRUSH.replace('photo', 'other')}</View>", "<Image>"),
        ("<View>" + " " * 2**20 + "</View>", "characters"),
    ],
)
def test_what_is_no_place_for_masks_is_refused(text, told):
    with pytest.raises(DataError, match=told):
        read_label_config(text)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"url": "ftp://a"}, "URL"),
        ({"url": "localhost:8080"}, "URL"),
        ({"url": "http://user:word@a"}, "URL"),
        ({"url": "http://a/?q"}, "URL"),
        ({"key": ""}, "LABEL_STUDIO_API_KEY"),
        ({"key": "a b"}, "LABEL_STUDIO_API_KEY"),
        ({"user": "u"}, "BASIC_AUTH_PASS"),
        ({"user": "ü", "password": "p"}, "ASCII"),
        ({"user": "a:b", "password": "p"}, "colon"),
        ({"password": "p"}, "BASIC_AUTH_USER"),
        ({"shots": 0}, "--label-studio-shots must be 1 or more"),
    ],
)
def test_invalid_settings_are_refused(words, told):
    with pytest.raises(ValueError, match=told):
        StudioSettings(**{"url": "http://a:8080", "key": "k", **words})


def test_settings_do_not_show_their_secrets():
    assert "hush" not in repr(StudioSettings(url="http://a", key="hush", user="u", password="hush"))
