//! `grpc.health.v1`: of the server as a whole, which is the protocol's service.

use std::time::Duration;

use tokio::sync::mpsc;
use tonic::Status;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::Rest;
use crate::calls::Caller;

pub(crate) const SERVICE: &str = "grpc.health.v1.Health";
/// Whoever watches learns of a change within so long.
const LOOK_EVERY: Duration = Duration::from_secs(1);

fn is_known(service: &str) -> bool {
    matches!(service, "" | SERVICE | modelyard_protocol::grpc::SERVICE)
}

async fn status<R: Rest>(caller: &Caller<R>) -> HealthCheckResponse {
    let status = if caller.is_ready().await { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}

pub(crate) async fn check<R: Rest>(
    caller: &Caller<R>,
    request: HealthCheckRequest,
) -> Result<HealthCheckResponse, Status> {
    if !is_known(&request.service) {
        return Err(Status::not_found("there is no such service here"));
    }
    Ok(status(caller).await)
}

/// Tells the state, and each other one that follows it.
pub(crate) async fn watch<R: Rest>(
    caller: &Caller<R>,
    request: HealthCheckRequest,
    told: &mpsc::Sender<Result<HealthCheckResponse, Status>>,
) {
    if !is_known(&request.service) {
        let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
        told.send(Ok(unknown)).await.ok();
        // It will never be known, and the watch ends with its caller.
        return told.closed().await;
    }
    let mut last = None;
    loop {
        let now = status(caller).await;
        if last != Some(now) && told.send(Ok(now)).await.is_err() {
            return;
        }
        last = Some(now);
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = told.closed() => return,
        }
    }
}
