//! Turns what an engine says into our kinds.

use bollard::errors::Error as EngineError;
use cocktail_core::error::{Error, ErrorKind};

/// What a lost answer means for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// It changes nothing: it may simply be repeated.
    Reads,
    /// It may have acted.
    Acts,
}

/// The error of a call to an engine. `what` was being done, in words: "start container web-1".
pub(crate) fn of(error: &EngineError, call: Call, what: &str) -> Error {
    if let EngineError::DockerResponseServerError { status_code, message } = error {
        return of_status(*status_code, message.trim(), what);
    }
    if let EngineError::DockerStreamError { error } = error {
        return of_pull(error, what);
    }
    if let EngineError::JsonDataError { message, .. } = error {
        return Error::unexpected(format!("{what}: the engine's answer cannot be read: {message}"));
    }
    lost(call, what, &chain(error))
}

/// No answer within the time of the call.
pub(crate) fn timed_out(call: Call, what: &str) -> Error {
    lost(call, what, "it did not answer in time")
}

fn lost(call: Call, what: &str, why: &str) -> Error {
    let kind = if call == Call::Reads { ErrorKind::Unavailable } else { ErrorKind::OutcomeUnknown };
    Error::new(kind, format!("{what}: the engine cannot be reached: {why}"))
}

/// The status of an error, if an engine answered with one.
pub(crate) fn status(error: &EngineError) -> Option<u16> {
    match error {
        EngineError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn of_status(status: u16, message: &str, what: &str) -> Error {
    let kind = match status {
        400 => ErrorKind::InvalidConfig,
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        429 => ErrorKind::Throttled { retry_after: None },
        _ if is_taken(message) => ErrorKind::Conflict,
        // What the runtime below the engine says of a start that can never be.
        _ if is_start_refused(message) => ErrorKind::InvalidConfig,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("{what}: {message}"))
}

/// Whether a start failed because somebody has the port.
pub(crate) fn is_taken(message: &str) -> bool {
    message.contains("port is already allocated") || message.contains("address already in use")
}

fn is_start_refused(message: &str) -> bool {
    let never = ["executable file not found", "no such file or directory", "permission denied", "unable to find user"];
    message.contains("OCI runtime create failed") && never.iter().any(|reason| message.contains(reason))
}

/// Why an image cannot be had, as registries and engines say it. A refusal counts before anything else that is said: some
/// registries tell strangers that there is no such image.
pub(crate) fn of_pull(message: &str, what: &str) -> Error {
    // Hosts and names of images are nobody's answer, whatever they are called.
    let is_name = |word: &&str| word.contains('/') || word.trim_end_matches(':').contains(':');
    let words: Vec<&str> = message.split_whitespace().filter(|word| !is_name(word)).collect();
    let lower = words.join(" ").to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let kind = if says(&["toomanyrequests", "too many requests", "rate limit"]) {
        ErrorKind::Throttled { retry_after: None }
    } else if says(&["denied", "unauthorized", "authentication required", "no basic auth", "forbidden"]) {
        ErrorKind::Denied
    } else if says(&["manifest unknown", "not found", "name unknown", "no matching manifest", "invalid reference"]) {
        ErrorKind::InvalidConfig
    } else {
        ErrorKind::Unavailable
    };
    Error::new(kind, format!("{what}: {}", message.trim()))
}

fn chain(error: &EngineError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls_fail_for_good_or_for_now() {
        let kinds = [
            ("manifest for web:9 not found: manifest unknown", ErrorKind::InvalidConfig),
            ("pull access denied for web, repository does not exist or may require 'docker login'", ErrorKind::Denied),
            ("toomanyrequests: You have reached your pull rate limit", ErrorKind::Throttled { retry_after: None }),
            ("Get \"https://registry/v2/\": dial tcp: lookup registry: no such host", ErrorKind::Unavailable),
            ("net/http: request canceled while waiting for connection", ErrorKind::Unavailable),
            ("Head \"https://registry/v2/web/manifests/1\": no basic auth credentials", ErrorKind::Denied),
            ("Get \"https://registry/v2/\": unauthorized: authentication required", ErrorKind::Denied),
            // What a name says is no answer.
            (
                "Get \"https://registry/v2/forbidden/\": dial tcp 10.0.0.1:5000: connection refused",
                ErrorKind::Unavailable,
            ),
            ("manifest for denied:9 not found: manifest unknown", ErrorKind::InvalidConfig),
        ];
        for (message, kind) in kinds {
            assert_eq!(*of_pull(message, "pull web").kind(), kind, "{message}");
        }
    }

    #[test]
    fn a_port_that_somebody_has_is_a_conflict_whatever_the_status() {
        for message in [
            "driver failed programming external connectivity on endpoint x: Bind for 0.0.0.0:80 failed: port is already allocated",
            "Error starting userland proxy: listen tcp4 127.0.0.1:80: bind: address already in use",
        ] {
            assert_eq!(*of_status(500, message, "start").kind(), ErrorKind::Conflict);
        }
    }

    #[test]
    fn a_lost_answer_is_unknown_only_for_what_acts() {
        assert_eq!(*timed_out(Call::Acts, "start").kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(*timed_out(Call::Reads, "list").kind(), ErrorKind::Unavailable);
    }
}
