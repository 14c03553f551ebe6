"""AdmissionReviews as the API server writes them, and what comes back."""

from __future__ import annotations

import base64
import json
from typing import Any

import jsonpatch

Raw = dict[str, Any]

UID = "705ab4f5-6393-11e8-b7cc-42010a800002"
GPU = {"limits": {"nvidia.com/gpu": "1"}}
MARKED = "gpudetour-devices-" + "a" * 20


def pod(**spec: Any) -> Raw:
    """Return a pod as it is at CREATE; one container that asks for a GPU unless told otherwise."""
    containers = [{"name": "main", "image": "cuda", "resources": GPU}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "train-", "namespace": "default", "creationTimestamp": None},
        "spec": {"containers": containers, **spec},
        "status": {},
    }


def review(obj: Any, **request: Any) -> Raw:
    """Return a review (k8s.io/api/admission/v1) that asks for the creation of `obj`."""
    return {
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": UID,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "default",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:job-controller"},
            "object": obj,
            "oldObject": None,
            "dryRun": False,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
            **request,
        },
    }


def patched(obj: Raw, response: Raw) -> Any:
    """Return what the API server stores: the object with the answer's patch applied."""
    if "patch" not in response:
        return obj
    assert response["patchType"] == "JSONPatch"
    return jsonpatch.apply_patch(obj, json.loads(base64.b64decode(response["patch"])))
