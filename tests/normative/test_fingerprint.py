from qcord.normative.fingerprint import fingerprint

DWI = {
    "Manufacturer": "SIEMENS",
    "ManufacturersModelName": "Prisma",
    "MagneticFieldStrength": 3,
    "ScanningSequence": "EP",
    "RepetitionTime": 0.62,
    "EchoTime": 0.06,
    "FlipAngle": 90,
    "SliceThickness": 5,
    "BValue": [0, 5, 798, 800, 803],
}


def test_readable_and_rounded():
    found = fingerprint(DWI)
    assert found.text == "Siemens Prisma 3 T, EP, TE 0.06, FA 90, b 0/800, slice 5"
    assert len(found.digest) == 8
    assert str(found).endswith(f"#{found.digest}")


def test_jitter_is_no_other_protocol_but_echo_time_is():
    base = fingerprint(DWI)
    gated = {
        **DWI,
        "RepetitionTime": 0.71,
        "EchoTime": 0.0602,
        "MagneticFieldStrength": 2.99,
        "AcquisitionTime": "9:00",
    }
    assert fingerprint(gated) == base
    assert fingerprint({**DWI, "EchoTime": 0.075}).digest != base.digest
    assert fingerprint({**DWI, "Manufacturer": "GE MEDICAL SYSTEMS"}).digest != base.digest


def test_order_of_images_does_not_matter():
    on, off = {"FlipAngle": 9, "MTState": True}, {"FlipAngle": 15, "RepetitionTimeExcitation": 0.015}
    assert fingerprint([on, off]) == fingerprint([off, on])
    assert "FA 9/15" in fingerprint([on, off]).text


def test_two_names_of_one_repetition_time():
    assert fingerprint({"RepetitionTime": 0.03}) == fingerprint({"RepetitionTimeExcitation": 0.03})


def test_nothing_known():
    assert fingerprint([]) is None
    assert fingerprint({"Manufacturer": "Siemens"}) is None
    assert fingerprint({"EchoTime": "unknown"}) is None
