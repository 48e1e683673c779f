//! Errors as answers.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cocktail_core::error::{Error, ErrorKind};

use super::extract::Json;
use crate::wire;

/// The status that belongs to a kind. Clients go by the kind in the body; the status is for what knows only HTTP.
pub(super) fn status_of(kind: &ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidConfig => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict | ErrorKind::Refused | ErrorKind::Quota { .. } => StatusCode::CONFLICT,
        ErrorKind::Denied => StatusCode::FORBIDDEN,
        ErrorKind::Throttled { .. } => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unavailable | ErrorKind::InsufficientCapacity { .. } => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::OutcomeUnknown => StatusCode::BAD_GATEWAY,
        ErrorKind::Deadline => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Unexpected => StatusCode::INTERNAL_SERVER_ERROR,
        // Kinds may be added; one that nobody has thought about here is a fault of ours.
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// An error that answers a request.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    error: Error,
}

impl Failure {
    /// An error of the request itself, for which HTTP has a status of its own.
    pub(super) fn of_request(status: StatusCode, error: Error) -> Self {
        Self { status, error }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { status: status_of(error.kind()), error }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(wire::error_view(&self.error))).into_response();
        if let ErrorKind::Throttled { retry_after: Some(after) }
        | ErrorKind::InsufficientCapacity { retry_after: Some(after), .. } = self.error.kind()
        {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UPGRADE_REQUIRED {
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(wire::EXEC_PROTOCOL));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn kinds_have_the_statuses_that_are_promised() {
        for (kind, status) in [
            (ErrorKind::InvalidConfig, 422),
            (ErrorKind::NotFound, 404),
            (ErrorKind::Conflict, 409),
            (ErrorKind::Refused, 409),
            (ErrorKind::Quota { scope: "cpu".into() }, 409),
            (ErrorKind::Denied, 403),
            (ErrorKind::Throttled { retry_after: None }, 429),
            (ErrorKind::Unavailable, 503),
            (ErrorKind::InsufficientCapacity { offering: "large".into(), retry_after: None }, 503),
            (ErrorKind::OutcomeUnknown, 502),
            (ErrorKind::Deadline, 504),
            (ErrorKind::Unsupported, 501),
            (ErrorKind::Unexpected, 500),
        ] {
            assert_eq!(status_of(&kind), status, "{kind:?}");
        }
    }

    #[test]
    fn a_throttled_answer_says_when_to_come_again() {
        let kind = ErrorKind::Throttled { retry_after: Some(Duration::from_millis(1_500)) };
        let response = Failure::from(Error::new(kind, "too many calls")).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }
}
