"""Carbon intensity of electricity by region: what `--carbon DE` stands for.

Grams of CO2-equivalent per kWh generated, averages of a year, from Ember's Yearly Electricity Data
(https://ember-energy.org/data/yearly-electricity-data/, CC BY 4.0), by way of the Green Web
Foundation's CO2.js. An average says nothing of the hour: for that, give a file.
"""

from __future__ import annotations

from typing import NamedTuple

SOURCE = "Ember, Yearly Electricity Data"


class Region(NamedTuple):
    code: str
    name: str
    year: int
    g_per_kwh: float


REGIONS: tuple[Region, ...] = (
    Region("world", "World", 2022, 485.99),
    Region("EU", "European Union", 2023, 243.83),
    Region("AE", "United Arab Emirates", 2022, 561.14),
    Region("AT", "Austria", 2023, 110.81),
    Region("AU", "Australia", 2022, 570.35),
    Region("BE", "Belgium", 2023, 138.11),
    Region("BR", "Brazil", 2022, 105.51),
    Region("CA", "Canada", 2022, 161.43),
    Region("CH", "Switzerland", 2023, 34.84),
    Region("CL", "Chile", 2022, 353.52),
    Region("CN", "China", 2022, 585.82),
    Region("CZ", "Czechia", 2023, 449.72),
    Region("DE", "Germany", 2023, 380.95),
    Region("DK", "Denmark", 2023, 151.65),
    Region("ES", "Spain", 2023, 174.05),
    Region("FI", "Finland", 2023, 79.16),
    Region("FR", "France", 2023, 56.04),
    Region("GB", "United Kingdom", 2023, 237.59),
    Region("IE", "Ireland", 2023, 290.81),
    Region("IN", "India", 2022, 705.13),
    Region("IS", "Iceland", 2022, 27.68),
    Region("IT", "Italy", 2023, 330.72),
    Region("JP", "Japan", 2022, 512.81),
    Region("KR", "South Korea", 2022, 441.65),
    Region("NL", "Netherlands", 2023, 267.62),
    Region("NO", "Norway", 2023, 30.08),
    Region("NZ", "New Zealand", 2022, 110.89),
    Region("PL", "Poland", 2023, 661.93),
    Region("PT", "Portugal", 2023, 165.55),
    Region("SE", "Sweden", 2023, 40.70),
    Region("SG", "Singapore", 2022, 474.00),
    Region("TW", "Taiwan", 2022, 639.53),
    Region("US", "United States", 2022, 385.98),
    Region("ZA", "South Africa", 2022, 729.67),
)
