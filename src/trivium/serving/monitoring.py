"""Whether the server lives, and what it has done."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from trivium.serving.metrics import Labels
from trivium.serving.responses import NEEDS_KEY, WHY, Error, Health, told
from trivium.serving.service import TheService, check_key

router = APIRouter()


@router.get("/health", responses=told(Health) | {503: {"model": Health | Error, "description": WHY[503]}})
async def health(service: TheService) -> Response:
    alive = service.scheduler.alive
    return JSONResponse({"status": "ok" if alive else "failed", "models": list(service.models)}, 200 if alive else 503)


@router.get("/metrics", dependencies=[Depends(check_key)], openapi_extra=NEEDS_KEY, response_class=PlainTextResponse,
            responses={401: {"model": Error, "description": WHY[401]}})
async def prometheus(service: TheService) -> Response:
    models = service.models.values()
    gauges: dict[str, dict[Labels, float]] = {
        "trivium_running_samples": {(("model", model.name),): float(len(model.engine.live)) for model in models},
        "trivium_waiting_samples": {(("model", model.name),): float(max(0, model.taken - len(model.engine.live)))
                                    for model in models}
    }
    return Response(service.metrics.text(gauges), media_type="text/plain; version=0.0.4")
