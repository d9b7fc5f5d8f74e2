"""Images that are stored, read and deleted one by one."""

from __future__ import annotations

import base64
import binascii
from typing import Any
from unittest.mock import ANY

import httpx
import numpy as np
import pytest
from serve.test_requests import check_refused
from support.scorers import CAPTIONS
from support.served import Client, Server, by_scorer_captions, regions_of
from support.small_galleries import BOXES, IMAGE_IDS, REGIONS

from sgraf_deploy.gallery.indexing import SplitImages, add
from sgraf_deploy.gallery.splits import SplitDetails
from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.runtime.encoded import EncodedImages
from sgraf_deploy.serve.settings import Limits, Settings

IMAGE = regions_of(REGIONS[3] + 1)
BEHIND = "/v1/images/"


def test_what_is_stored_can_be_reranked_read_and_deleted(server: Server) -> None:
    boxes = (BOXES + 3).tolist()
    body = {**IMAGE, "metadata": {"album": "summer"}, "boxes": boxes, "size": [640, 480]}

    async def conversation(client: Client) -> None:
        stored = await client.http.put(BEHIND + "new.jpg", json=body)
        assert (stored.status_code, stored.json()) == (200, {"id": "new.jpg", "created": True})
        # Another process that opens it finds it: it is on the disk.
        assert "new.jpg" in Gallery.open(client.gallery.path)
        found = (await client.http.get(BEHIND + "new.jpg")).json()
        more = {key: body[key] for key in ("metadata", "boxes", "size")}
        assert found == {"id": "new.jpg", **more}
        ranked = await client.ranked({"query": "image:new.jpg", "documents": CAPTIONS})
        expected = server.scorer.rerank(REGIONS[3] + 1, CAPTIONS)
        assert ranked == [item.index for item in expected]

        again = await client.http.put(BEHIND + "new.jpg", json=regions_of(REGIONS[5]))
        assert again.json()["created"] is False
        assert (await client.http.get(BEHIND + "new.jpg")).json() == {"id": "new.jpg"}
        ranked = await client.ranked({"query": "image:new.jpg", "documents": CAPTIONS})
        assert ranked == by_scorer_captions(server.scorer, IMAGE_IDS[5], CAPTIONS)

        gone = await client.http.delete(BEHIND + "new.jpg")
        assert (gone.status_code, gone.json()) == (200, {"id": "new.jpg", "deleted": True})
        for method in ("GET", "DELETE"):
            response = await client.http.request(method, BEHIND + "new.jpg")
            check_refused(response, 404, "image_not_found")

    server.talk(conversation)


def test_the_command_line_takes_it_for_the_same_image(server: Server) -> None:
    server.talk(lambda client: client.http.put(BEHIND + "new.jpg", json=regions_of(REGIONS[3])))

    details = SplitDetails(None, None)
    items = SplitImages(server.scorer, ["new.jpg"], REGIONS[3:4], details)
    assert add(server.gallery, items).present == 1


@pytest.mark.parametrize(
    ("path", "id_"),
    [
        ("a/b/c.jpg", "a/b/c.jpg"),
        ("a//b", "a//b"),
        ("a/", "a/"),
        ("%2e%2e%2fetc%2fpasswd", "../etc/passwd"),
        ("..%2F..%2Fdata.mdb", "../../data.mdb"),
        ("%C3%A9t%C3%A9%20%E2%98%80", "été ☀"),
        ("a%2525", "a%25"),
        ("a%3Fb%23c", "a?b#c"),
        ("a+b;c=d", "a+b;c=d"),
        ("x" * 510, "x" * 510),
    ],
)
def test_an_id_is_text_and_no_path(server: Server, path: str, id_: str) -> None:
    before = {file.name for file in server.folder.rglob("*")}

    async def conversation(client: Client) -> None:
        stored = await client.http.put(BEHIND + path, json=IMAGE)
        assert stored.json() == {"id": id_, "created": True}
        assert (await client.http.get(BEHIND + path)).json() == {"id": id_}
        body = {"query": CAPTIONS[0], "documents": [{"image_id": id_}]}
        assert await client.ranked(body) == [0]

    server.talk(conversation)
    assert id_ in server.gallery
    assert {file.name for file in server.folder.rglob("*")} == before


@pytest.mark.parametrize(
    "path", ["%00", "a%00b", "a%0Ab", "%1b[2J", "%7F", "%C2%9B", "x" * 511, "%E2%98%80" * 171]
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_ids_that_are_none_are_refused(server: Server, method: str, path: str) -> None:
    async def send(client: Client) -> httpx.Response:
        return await client.http.request(method, BEHIND + path, json=IMAGE)

    check_refused(server.talk(send), 422, "invalid_id", "id")


def test_ids_that_are_no_text_are_refused(server: Server) -> None:
    for path in ("%FF", "a%C3", "%ED%A0%80"):
        response = server.talk(lambda client, path=path: client.http.get(BEHIND + path))  # type: ignore[misc]
        check_refused(response, 422, "invalid_id", "id")
    for id_ in ("a\0b", "", "\x1b[2J", "x" * 511):
        body = {"query": "a dog", "documents": ["image:photo0.jpg", {"image_id": id_}]}
        response = server.talk(lambda client, body=body: client.rerank(body))  # type: ignore[misc]
        check_refused(response, 422, "invalid_id", "documents[1]")


def encoded(size: int) -> str:
    return base64.b64encode(bytes(size)).decode()


NAN, INFINITE = (np.full((4, 6), value, np.float32) for value in (np.nan, np.inf))
WRONG = [
    ({"regions": encoded(95)}, "too few bytes"),
    ({"regions": encoded(97)}, "too many bytes"),
    ({"regions": encoded(10_000_000)}, "a bomb"),
    ({"regions": ""}, "none"),
    ({"regions": "!" * 128}, "no base64"),
    ({"regions": encoded(96)[:-1] + "\n"}, "a line"),
    ({"regions": "é" * 128}, "no ASCII"),
    ({"shape": [6, 4]}, "turned"),
    ({"shape": [4, 6, 1]}, "three axes"),
    ({"shape": [2**62, 2**62]}, "huge"),
    ({"shape": [-4, -6]}, "negative"),
    ({"dtype": "float64"}, "double"),
    ({"dtype": "object"}, "object"),
    ({"dtype": "float16"}, "half of it"),
    ({"regions": regions_of(NAN)["regions"]}, "NaN"),
    ({"regions": regions_of(INFINITE)["regions"]}, "infinite"),
]


@pytest.mark.parametrize("more", [one for one, _ in WRONG], ids=[name for _, name in WRONG])
def test_regions_that_are_none_are_refused(server: Server, more: dict[str, Any]) -> None:
    body = {**IMAGE, **more}

    async def conversation(client: Client) -> None:
        check_refused(await client.http.put(BEHIND + "new", json=body), 422, None, ANY)
        rerank: dict[str, Any] = {"query": "a dog", "documents": ["image:photo0.jpg", body]}
        check_refused(await client.rerank(rerank), 422, None, "documents[1]")
        rerank = {"query": body, "documents": ["a dog"]}
        check_refused(await client.rerank(rerank), 422, None, "query")

    server.talk(conversation)
    assert "new" not in server.gallery


def test_base64_of_another_length_is_not_decoded(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    decode = binascii.a2b_base64

    def watched(text: str, **more: Any) -> bytes:
        decoded.append(len(text))
        return decode(text, **more)

    monkeypatch.setattr(binascii, "a2b_base64", watched)
    for more in ({}, {"regions": encoded(10_000_000)}, {"regions": encoded(99)}):
        body = {"query": "a dog", "documents": [{**IMAGE, **more}]}
        status = server.talk(lambda client, body=body: client.rerank(body)).status_code  # type: ignore[misc]
        assert status == (422 if more else 200)
    assert decoded == [128]


@pytest.mark.parametrize(
    "more",
    [
        {"metadata": [1]},
        {"metadata": {"a": "x" * 2**20}},
        {"boxes": [[0, 0, 1, 1]]},
        {"boxes": [[0, 0, 1]] * 4},
        {"boxes": [[0, 0, 1, 1e300]] * 4},
        {"size": [0, 1]},
        {"size": [2**31, 1]},
        {"size": [1]},
        {"other": 1},
        {"regions": None},
    ],
)
def test_details_that_are_none_are_refused(server: Server, more: dict[str, Any]) -> None:
    response = server.talk(lambda client: client.http.put(BEHIND + "new", json={**IMAGE, **more}))

    check_refused(response, 422, "invalid_image", ANY)
    assert "new" not in server.gallery


def test_regions_that_overflow_the_model_are_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_host = EncodedImages.to_host

    def overflowed(self: EncodedImages) -> Any:
        found = {member: dict(named) for member, named in to_host(self).items()}
        found["saf"]["image_global"] = np.full_like(found["saf"]["image_global"], np.inf)
        return found

    monkeypatch.setattr(EncodedImages, "to_host", overflowed)
    response = server.talk(lambda client: client.http.put(BEHIND + "new", json=IMAGE))

    check_refused(response, 422, "invalid_image", "regions")
    assert "new" not in server.gallery


def test_a_gallery_that_another_process_writes_is_not_available(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sgraf_deploy.errors import DataError

    def locked(*_: Any, **__: Any) -> int:
        raise DataError("another process is writing")

    monkeypatch.setattr(Gallery, "write", locked)
    response = server.talk(lambda client: client.http.put(BEHIND + "new", json=IMAGE))

    check_refused(response, 503, "unavailable")
    assert response.headers["retry-after"] == "1"


def test_ids_may_be_limited_further(server: Server) -> None:
    settings = Settings(limits=Limits(id_bytes=8))
    response = server.talk(lambda client: client.http.get(BEHIND + "photo0.jpg"), settings)

    check_refused(response, 422, "invalid_id", "id")
