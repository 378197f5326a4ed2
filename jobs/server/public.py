"""What of a job is shown over HTTP: no path of the server, and a spec within bounds."""

from __future__ import annotations

from pathlib import PurePath

from jobs.server.problems import FieldError, Refusal, Scrubber
from jobs.service.views import EventView, JobPage, JobView, Results
from jobs.spec import JobSpec
from un0.catalog import list_models
from un0.suggest import did_you_mean

MOST_LABELS, MOST_LABEL, MOST_NAME, MOST_CLASSES = 64, 256, 128, 10_000


def public_job(view: JobView, clean: Scrubber) -> JobView:
    """The job without paths of the server."""
    spec, reason = view.spec, view.reason
    if isinstance(spec.get("model"), str):
        spec = spec | {"model": _model(spec["model"])}
    if reason is not None:
        reason = reason.model_copy(update={"message": clean(reason.message)})
    results = public_results(view.results, view.job_id)
    changes = {"model": _model(view.model), "spec": spec, "reason": reason, "results": results}
    return view.model_copy(update=changes)


def public_event(event: EventView, clean: Scrubber) -> EventView:
    """The event without paths of the server."""
    return event.model_copy(update={"message": clean(event.message)})


def public_page(page: JobPage) -> JobPage:
    """The page without paths of the server."""
    jobs = tuple(line.model_copy(update={"model": _model(line.model)}) for line in page.jobs)
    return page.model_copy(update={"jobs": jobs})


def public_results(results: Results, job_id: str) -> Results:
    """The results; those in a directory of the server are to be had by HTTP only."""
    if results.uri.startswith("s3://"):
        return results
    return results.model_copy(update={"uri": f"/v1/jobs/{job_id}/results"})


def _model(name: str) -> str:
    return PurePath(name).name if name.startswith(("/", "~", ".")) else name


def check_spec(spec: JobSpec) -> None:
    """Refuse what the command line may have and a client may not: models by path, and sizes that
    would make pages and listings large. Raises Refusal."""
    errors = [
        FieldError(where="body", pointer=pointer, value=value, problem=problem)
        for pointer, value, problem in _faults(spec)
    ]
    if errors:
        detail = "; ".join(f"{error.pointer}: {error.problem}" for error in errors)
        raise Refusal(422, "invalid", detail, errors=errors)


def _faults(spec: JobSpec) -> list[tuple[str, str | None, str]]:
    found: list[tuple[str, str | None, str]] = []
    if spec.model is not None:
        known = [model.name for model in list_models()]
        if spec.model not in known:
            fix = did_you_mean(spec.model[:200], known, then="GET /v1/models lists those there are")
            found.append(("/model", _shown(spec.model), f"is no model of this service; {fix}"))
    if len(spec.labels) > MOST_LABELS:
        fix = f"{len(spec.labels)} labels; give at most {MOST_LABELS}"
        found.append(("/labels", None, fix))
    for name, text in spec.labels.items():
        if len(name) > MOST_NAME or len(text) > MOST_LABEL:
            fix = f"a label is too long; at most {MOST_NAME} characters, and {MOST_LABEL} of value"
            found.append(("/labels", _shown(name), fix))
            break
    classes = spec.classes or []
    if len(classes) > MOST_CLASSES:
        fix = f"{len(classes)} classes; give at most {MOST_CLASSES}"
        found.append(("/classes", None, fix))
    for each in classes:
        if isinstance(each, str) and (len(each) > MOST_NAME or not each.isprintable()):
            found.append(("/classes", _shown(each), "is no name of a class; correct it"))
            break
    return found


def _shown(text: str) -> str:
    return repr(text[:80])
