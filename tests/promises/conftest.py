"""Each promise is shown in every way of using memover that it concerns.

The ways are patient here: a machine that is busy for a second is no fault of the store. What is about budgets sets them."""

from __future__ import annotations

from tests.face.ways import EVERY, REDIS, PatientWay, way_of_fixture, ways

way = ways(PatientWay, EVERY)
redis_way = ways(PatientWay, REDIS)
way_of = way_of_fixture(PatientWay)
