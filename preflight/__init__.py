"""Says before the install whether a cluster can take gpudetour, and how to live with what is there.

`read` asks the API server and changes nothing, `surroundings` holds what it said, `checks` judge
it, `report` tells it. The words are the doctor's (`doctor.findings`).
"""
