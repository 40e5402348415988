# SPDX-License-Identifier: Apache-2.0
"""What the manual shows is what was measured."""

from __future__ import annotations

import json

from benchmarks import harness
from imagecache.tests import base


class KeptTest(base.TestCase):

    def test_every_drawing_is_of_the_table_on_record(self):
        records = list(harness.RECORDS.glob("*.json"))
        self.assertTrue(records)
        for record in records:
            for result in json.loads(record.read_text())["results"]:
                if result["chart"]:
                    drawing = harness.RECORDS / (
                        result["chart"]["name"] + ".svg")
                    self.assertIn(harness.stamp(result),
                                  drawing.read_text(), drawing)

    def test_every_number_of_the_tables_is_on_record(self):
        for record in harness.RECORDS.glob("*.json"):
            tables = record.with_suffix(".txt").read_text()
            for result in json.loads(record.read_text())["results"]:
                for row in result["rows"]:
                    line = next(line for line in tables.partition(
                        result["title"])[2].splitlines()
                        if line.startswith(row["name"]))
                    self.assertEqual(
                        [harness.number(each)
                         for each in row["values"].values()],
                        line.removeprefix(row["name"]).split())
