import pytest

from fewseg.serve.label_studio import LabelConfig, read_label_config
from fewseg.serve.label_studio_client import StudioSettings
from fewseg.types import DataError

IMAGE = '<Image name="photo" value="$picture"/>'
POLYGONS = '<PolygonLabels name="p" toName="photo"><Label value="a"/></PolygonLabels>'
BRUSH = '<BrushLabels name="b" toName="photo"><Label value="x" alias="y"/><Label value="a"/></BrushLabels>'


def test_a_brush_is_preferred_to_polygons_and_an_alias_is_the_name():
    own = {"to_name": "photo", "key": "picture"}
    found = read_label_config(f"<View>{IMAGE}<View>{POLYGONS}</View>{BRUSH}</View>")
    assert found == LabelConfig(from_name="b", tool="brushlabels", labels=("y", "a"), **own)
    found = read_label_config(f"<View>{POLYGONS}{IMAGE}</View>")
    assert found == LabelConfig(from_name="p", tool="polygonlabels", labels=("a",), **own)


ENTITY = '<!DOCTYPE v [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
BOMB = '<!DOCTYPE v [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "not plain XML"),
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
def test_a_configuration_without_a_place_for_masks_is_refused(text, error):
    with pytest.raises(DataError, match=error):
        read_label_config(text)


@pytest.mark.parametrize(
    ("words", "error"),
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
def test_invalid_settings_are_refused(words, error):
    with pytest.raises(ValueError, match=error):
        StudioSettings(**{"url": "http://a:8080", "key": "k", **words})


def test_settings_do_not_show_their_secrets():
    assert "hush" not in repr(StudioSettings(url="http://a", key="hush", user="u", password="hush"))
