import csv
import hashlib
import urllib.parse
from types import SimpleNamespace
from xml.sax.saxutils import escape

import pytest

HEADS = ["collection_id", "analysis_result_id", "PatientID", "StudyInstanceUID"]
HEADS += ["SeriesInstanceUID", "Modality", "series_aws_url", "series_size_MB", "license_short_name"]


@pytest.fixture
def bucket(site, tmp_path):
    """A store that speaks S3: lists in pages of two objects, ETags, ranges, and failures."""
    objects, rows, listings = {}, [], []

    def answer(path):
        place, _, query = path.partition("?")
        asked = dict(urllib.parse.parse_qsl(query))
        if place != "/store/" or asked.get("list-type") != "2":
            return None
        listings.append(asked)
        keys = sorted(key for key in objects if key.startswith(asked["prefix"]))
        start = int(asked.get("continuation-token", "0"))
        page, more = keys[start : start + 2], start + 2 < len(keys)
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(objects[key][0])}</Size>"
            f"<ETag>&quot;{objects[key][1]}&quot;</ETag></Contents>"
            for key in page
        )
        token = f"<NextContinuationToken>{start + 2}</NextContinuationToken>" if more else ""
        return {
            "type": "application/xml",
            "body": (
                '<?xml version="1.0" encoding="UTF-8"?>'
                '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                f"<IsTruncated>{str(more).lower()}</IsTruncated>{contents}{token}"
                "</ListBucketResult>"
            ).encode(),
        }

    def put(key, body, etag=None, **failures):
        tag = etag or hashlib.md5(body, usedforsecurity=False).hexdigest()
        objects[key] = (body, tag)
        site.serve(f"/store/{key}", body, tag=tag, **failures)

    def add_series(patient, modality, files, **row):
        number = len(rows) + 1
        for name, body in files.items():
            put(f"uuid-{number}/{name}", body)
        size = sum(len(body) for body in files.values())
        values = ["nsclc_radiomics", "", patient, f"1.2.{patient[-3:]}", f"1.2.3.{number}"]
        values += [modality, f"s3://store/uuid-{number}/*", size / 1e6, "CC BY-NC 3.0"]
        rows.append(dict(zip(HEADS, values, strict=True)) | row)

    def manifest():
        path = tmp_path / "manifest.csv"
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, HEADS)
            writer.writeheader()
            writer.writerows(rows)
        return path

    site.answer_with(answer)
    endpoint = f"http://127.0.0.1:{site.port}"
    return SimpleNamespace(
        put=put, add_series=add_series, manifest=manifest, endpoint=endpoint, listings=listings,
        objects=objects, rows=rows, site=site,
    )  # fmt: skip
