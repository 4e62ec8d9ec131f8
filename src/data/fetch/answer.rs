//! What a server's answer means: which version of the file it belongs to, which range it holds, and what a refusal or
//! a failure says about trying again (RFC 9110: validators, range requests, status codes).

use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::time::Duration;
use ureq::http::{HeaderMap, Response, StatusCode, header};

/// Why an attempt did not bring the whole file.
pub(super) enum Trouble {
    /// It may go better next time; the server may have asked for a pause.
    Passing(String, Option<Duration>),
    /// The network cannot be reached at all.
    Offline(String),
    /// This address will not serve the file.
    Refused(String),
    /// Nothing will: the disk, or the user.
    Stop(Error),
}

impl Trouble {
    pub(super) fn passing(finding: impl Into<String>) -> Self {
        Self::Passing(finding.into(), None)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Stop(error)
    }
}

/// Which version of the file the part belongs to; kept beside it.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PartState {
    pub(super) url: String,
    etag: Option<String>,
    last_modified: Option<String>,
    /// Bytes of the whole file as announced.
    pub(super) length: Option<u64>,
}

impl PartState {
    pub(super) fn of(url: &str, headers: &HeaderMap, length: Option<u64>) -> Self {
        let text = |name| Some(headers.get(name)?.to_str().ok()?.to_owned());
        Self { url: url.to_owned(), etag: text(header::ETAG), last_modified: text(header::LAST_MODIFIED), length }
    }

    /// What `If-Range` takes: a strong entity tag, else a date.
    pub(super) fn validator(&self) -> Option<&str> {
        let strong = self.etag.as_deref().filter(|etag| !etag.starts_with("W/"));
        strong.or(self.last_modified.as_deref())
    }

    /// Fills what is missing from an earlier answer of the same address.
    pub(super) fn keep(&mut self, before: Self) {
        if self.url == before.url {
            self.etag = self.etag.take().or(before.etag);
            self.last_modified = self.last_modified.take().or(before.last_modified);
        }
    }

    /// Whether both surely come from different versions.
    pub(super) fn contradicts(&self, other: &Self) -> bool {
        fn differ<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> bool {
            a.zip(b).is_some_and(|(a, b)| a != b)
        }
        let same_address = self.url == other.url;
        differ(self.length.as_ref(), other.length.as_ref())
            || same_address && differ(self.etag.as_ref(), other.etag.as_ref())
            || same_address && differ(self.last_modified.as_ref(), other.last_modified.as_ref())
    }
}

pub(super) fn content_length<T>(response: &Response<T>) -> Option<u64> {
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// First byte and total length from `Content-Range: bytes FIRST-LAST/TOTAL`; the total may be `*`.
pub(super) fn content_range<T>(response: &Response<T>) -> Option<(u64, Option<u64>)> {
    let text = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _last) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, total.trim().parse().ok()))
}

/// Total length from `Content-Range: bytes */TOTAL`.
pub(super) fn content_range_total<T>(response: &Response<T>) -> Option<u64> {
    let text = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes */")?.trim().parse().ok()
}

/// What an answer other than the file means.
pub(super) fn refusal(status: StatusCode, headers: &HeaderMap) -> Trouble {
    let finding = format!("the server answered {status}");
    let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    if !passing && !status.is_server_error() {
        return Trouble::Refused(finding);
    }
    let seconds = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Trouble::Passing(finding, seconds.map(Duration::from_secs))
}

/// What a failed request or a cut answer means.
pub(super) fn trouble(error: ureq::Error, timeout: Duration) -> Trouble {
    use ureq::Error as E;
    match error {
        E::HostNotFound => Trouble::Offline("its host name cannot be resolved".into()),
        // The standard library gives failures of the resolver no kind of their own.
        E::Io(error) if error.to_string().starts_with("failed to lookup address") => {
            Trouble::Offline(format!("its host name cannot be resolved ({error})"))
        }
        E::Io(error) if matches!(error.kind(), ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable) => {
            Trouble::Offline(format!("it cannot be reached ({error})"))
        }
        E::Io(error) if error.kind() == ErrorKind::UnexpectedEof => Trouble::passing("the connection was cut"),
        E::Io(error) => Trouble::passing(format!("the connection failed ({error})")),
        E::Timeout(_) => Trouble::passing(format!("no answer within {:.0} s", timeout.as_secs_f64().max(1.0))),
        E::Protocol(_) | E::ConnectionFailed => Trouble::passing(format!("the connection failed ({error})")),
        other => Trouble::Refused(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn only_a_strong_validator_makes_a_range_conditional() {
        let state = |etag: Option<&str>, date: Option<&str>| PartState {
            etag: etag.map(Into::into),
            last_modified: date.map(Into::into),
            ..Default::default()
        };
        assert_eq!(state(Some("\"a\""), Some("Mon")).validator(), Some("\"a\""));
        assert_eq!(state(Some("W/\"a\""), Some("Mon")).validator(), Some("Mon"));
        assert_eq!(state(Some("W/\"a\""), None).validator(), None);
    }

    #[test]
    fn being_offline_is_told_apart() {
        let lookup = io::Error::other("failed to lookup address information: Temporary failure in name resolution");
        for error in [ureq::Error::HostNotFound, lookup.into(), io::Error::from(ErrorKind::NetworkUnreachable).into()] {
            assert!(matches!(trouble(error, Duration::ZERO), Trouble::Offline(_)));
        }
        let reset = io::Error::from(ErrorKind::ConnectionReset);
        assert!(matches!(trouble(reset.into(), Duration::ZERO), Trouble::Passing(..)));
    }
}
