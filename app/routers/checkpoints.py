"""`/v1/checkpoints`: weights of one's own, from which experiments begin. The API takes the file in; a worker reads it."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response

from app import answers, checkpoint_headers, schemas
from app.dependencies import KeyHeader, Once, SessionDep, once_for
from app.persistence import checkpoints
from app.uploads import Received, documented, receiving
from ml.spec import CHECKPOINT_ID

router = APIRouter(prefix="/v1/checkpoints", tags=["checkpoints"])
CheckpointId = Annotated[str, Path(alias="id", pattern=CHECKPOINT_ID, description="`ckp_…`")]
ReceivedDep = Annotated[Received, Depends(receiving(schemas.CheckpointForm))]
BODY = documented(
    schemas.CheckpointForm,
    "A safetensors file, or what `torch.save` writes of a state dict. Nothing in it is executed.",
)


def _once(
    request: Request, response: Response, session: SessionDep, received: ReceivedDep, idempotency_key: KeyHeader = None
) -> Once:
    return once_for(request, response, session, idempotency_key, {"file": received.sha256, **received.fields})


@router.post("", status_code=201, response_model=schemas.Checkpoint, openapi_extra=BODY)
def upload_checkpoint(received: ReceivedDep, session: SessionDep, once: Annotated[Once, Depends(_once)]) -> Any:
    """Upload an encoder's weights; experiments begin from them by `encoder.weights`.

    To evaluate them as they are choose the method `frozen`; any other trains on from them. The `id` is that of the content: the
    same file is the same checkpoint.
    """
    form = schemas.CheckpointForm.model_validate(received.fields)
    format = checkpoint_headers.check(received.path)
    name = received.title[:200] if form.name is None else form.name
    answer = answers.checkpoint(checkpoints.create(session, name, format, received.path, received.sha256, received.size))
    once.remember(answer, 201, answer.links["self"])
    session.commit()
    return answer


@router.get("/{id}", response_model=schemas.Checkpoint)
def get_checkpoint(checkpoint_id: CheckpointId, session: SessionDep) -> Any:
    """A checkpoint: what it is called, its size and its format."""
    return answers.checkpoint(checkpoints.get(session, checkpoint_id))


@router.delete("/{id}", status_code=204)
def delete_checkpoint(checkpoint_id: CheckpointId, session: SessionDep) -> None:
    """Remove a checkpoint that no unfinished experiment begins from."""
    checkpoints.delete(session, checkpoint_id)
    session.commit()
