//! What the API says when something can't be done: which parameter, what is wrong with it, and a code for programs.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::{
    answers::{ErrorAnswer, ErrorDetail},
    routes::json,
};
use crate::dht::{Failure, Refusal};

/// Something can't be done.
#[derive(Debug)]
pub(super) struct Error {
    status: StatusCode,
    code: &'static str,
    message: String,
    parameter: Option<&'static str>,
}

impl Error {
    /// A parameter can't be used.
    pub(super) fn parameter(parameter: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: "InvalidParameter",
            message: message.into(),
            parameter: Some(parameter),
        }
    }

    /// A parameter that there is not.
    pub(super) fn unknown(name: &str, known: &[&str]) -> Self {
        let known = if known.is_empty() {
            "this path takes none".to_owned()
        } else {
            format!("this path takes {}", known.join(", "))
        };
        Self {
            status: StatusCode::BAD_REQUEST,
            code: "UnknownParameter",
            message: format!("{name:?} is no parameter: {known}"),
            parameter: None,
        }
    }

    pub(super) fn too_large(limit: usize) -> Self {
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            code: "ValueTooLarge",
            message: format!("a value has at most {limit} bytes"),
            parameter: Some("body"),
        }
    }

    pub(super) fn body(message: impl Into<String>) -> Self {
        Self::parameter("body", message)
    }

    pub(super) fn no_such_path() -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            code: "NoSuchPath",
            message: "there is no such path: GET /openapi.json describes those that there are".to_owned(),
            parameter: None,
        }
    }

    pub(super) fn no_such_method() -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            code: "NoSuchMethod",
            message: "this path does not take this method: GET /openapi.json describes those that it takes"
                .to_owned(),
            parameter: None,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let (status, code, parameter) = match &failure {
            Failure::Off => (StatusCode::SERVICE_UNAVAILABLE, "DhtOff", None),
            Failure::Busy => (StatusCode::TOO_MANY_REQUESTS, "TooManyCommands", None),
            Failure::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "Stopping", None),
            Failure::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "TimedOut", None),
            Failure::NotFound { .. } => (StatusCode::NOT_FOUND, "NotFound", None),
            Failure::QuorumFailed { .. } => (StatusCode::SERVICE_UNAVAILABLE, "QuorumFailed", None),
            Failure::Refused(Refusal::KeyLength { .. }) => {
                (StatusCode::BAD_REQUEST, "InvalidParameter", Some("key"))
            }
            Failure::Refused(Refusal::ValueTooLarge { .. }) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "ValueTooLarge", Some("body"))
            }
            Failure::Refused(Refusal::Records(_) | Refusal::Bytes(_) | Refusal::Share) => {
                (StatusCode::INSUFFICIENT_STORAGE, "StoreFull", None)
            }
            Failure::Refused(Refusal::Expired | Refusal::Older) => (StatusCode::CONFLICT, "Newer", None),
            Failure::TooManyServices(_) => (StatusCode::INSUFFICIENT_STORAGE, "TooManyServices", None),
            Failure::Unreachable(_) => (StatusCode::BAD_GATEWAY, "Unreachable", None),
        };
        Self {
            status,
            code,
            message: failure.to_string(),
            parameter,
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let answer = ErrorAnswer {
            error: ErrorDetail {
                code: self.code.to_owned(),
                message: self.message,
                parameter: self.parameter.map(str::to_owned),
            },
        };
        json(self.status, &answer)
    }
}
