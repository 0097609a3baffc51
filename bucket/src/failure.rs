//! What a failed request means: the error to show, and whether trying again
//! can help.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use object_store::client::{HttpError, HttpErrorKind};
use quire_proto::{Error, ErrorKind};

use crate::answers::{NoCredentials, Refusal};

/// A failed attempt at one request.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) hope: Hope,
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hope {
    /// The same request gets the same answer.
    None,
    /// The store was busy, or the connection broke; it may have acted.
    Busy,
    /// No connection came about: the request was certainly not seen.
    Unreached,
    /// Fewer bytes came than the object has, or was said to have.
    Short,
    /// Not known to this crate; treated as `Busy`.
    Unclear,
}

impl Failure {
    pub(crate) fn last(error: Error) -> Failure {
        Failure { error, hope: Hope::None }
    }

    pub(crate) fn busy(message: impl Into<String>) -> Failure {
        Failure { error: unreachable_store(message.into()), hope: Hope::Busy }
    }

    pub(crate) fn short(message: String) -> Failure {
        let error = Error::corrupt(message)
            .with_remedy("Run `quire verify`; restore the object if the store keeps versions or a copy.");
        Failure { error, hope: Hope::Short }
    }

    pub(crate) fn timed_out(what: &str, after: Duration) -> Failure {
        Failure::busy(format!("{what}: no answer within {:.1} s", after.as_secs_f32()))
    }

    pub(crate) fn is_unclear(&self) -> bool {
        self.hope == Hope::Unclear
    }

    /// Classifies what object_store reports about `what`.
    pub(crate) fn of(what: &str, e: object_store::Error) -> Failure {
        if let Some(refusal) = cause::<Refusal>(&e) {
            return of_refusal(what, refusal);
        }
        if let Some(missing) = cause::<NoCredentials>(&e) {
            return Failure::last(denied(format!("{what}: {missing}")));
        }
        if let Some(http) = cause::<HttpError>(&e) {
            return of_transport(what, http);
        }
        if let object_store::Error::NotFound { .. } = e {
            return Failure::last(Error::not_found(format!("{what}: there is no such object")));
        }
        if let Some(io) = cause::<io::Error>(&e) {
            return Failure::last(of_io(what, io));
        }
        match e {
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                Failure::last(denied(format!("{what}: {e}")))
            }
            object_store::Error::NotSupported { .. }
            | object_store::Error::NotImplemented { .. }
            | object_store::Error::UnknownConfigurationKey { .. }
            | object_store::Error::InvalidPath { .. } => Failure::last(Error::invalid(format!("{what}: {e}"))),
            // An answer that object_store could not read: a proxy's page, a
            // truncated listing.
            _ => Failure { hope: Hope::Unclear, ..Failure::busy(format!("{what}: {e}")) },
        }
    }
}

/// An error, its cause, the cause of that, and so on.
fn causes<'a>(e: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    fn next<'a>(e: &&'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
        (*e).source()
    }
    std::iter::successors(Some(e), next)
}

/// The first error of type `E` among `e` and its causes.
fn cause<'a, E: StdError + 'static>(e: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    causes(e).find_map(|e| e.downcast_ref::<E>())
}

fn of_refusal(what: &str, refusal: &Refusal) -> Failure {
    let said = format!("{what}: the store answered {refusal}");
    if refusal.is_missing_bucket() {
        return Failure::last(
            Error::invalid(format!("{what}: the store has no such bucket ({refusal})"))
                .with_remedy("Create the bucket, or correct the store's URL and endpoint."),
        );
    }
    let wrong_region =
        matches!(refusal.code.as_str(), "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException");
    match refusal.status {
        300..=399 => Failure::last(wrong_endpoint(said)),
        400 if wrong_region => Failure::last(wrong_endpoint(said)),
        // S3's words for a body that came too slowly.
        400 if refusal.code == "RequestTimeout" => Failure::busy(said),
        401 | 403 => Failure::last(denied(said)),
        416 => Failure::short(said),
        507 => Failure::last(
            Error::new(ErrorKind::Full, said)
                .with_remedy("Free space in the store, or raise its quota; then try again."),
        ),
        501 => Failure::last(Error::invalid(said).with_remedy("This store lacks an operation that Quire needs.")),
        408 | 409 | 429 | 500..=599 => Failure::busy(said),
        _ => Failure::last(Error::invalid(said)),
    }
}

fn of_transport(what: &str, http: &HttpError) -> Failure {
    let hope = if http.kind() == HttpErrorKind::Connect { Hope::Unreached } else { Hope::Busy };
    let mut said: Vec<String> = causes(http).skip(1).map(|e| e.to_string()).collect();
    said.dedup();
    Failure { error: unreachable_store(format!("{what}: {}", said.join(": "))), hope }
}

/// A folder's failure.
pub(crate) fn of_io(what: &str, e: &io::Error) -> Error {
    // The code of the system, where there is one, says more than its kind: that too many files are open, say.
    let copy = e.raw_os_error().map_or_else(|| io::Error::new(e.kind(), e.to_string()), io::Error::from_raw_os_error);
    let error = Error::from_io(what, copy);
    match error.kind() {
        ErrorKind::Full => error.with_remedy("Free space on the store's file system, then try again."),
        ErrorKind::Denied => error.with_remedy("Give this user access to the store's folder, or choose another store."),
        _ => error,
    }
}

fn denied(message: String) -> Error {
    Error::new(ErrorKind::Denied, message).with_remedy(
        "Check the store's credentials (S3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; Google: \
         GOOGLE_SERVICE_ACCOUNT; Azure: AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY) and what they are allowed to do.",
    )
}

fn wrong_endpoint(message: String) -> Error {
    Error::invalid(message).with_remedy("Set the bucket's own region and endpoint (AWS_REGION, AWS_ENDPOINT_URL).")
}

fn unreachable_store(message: String) -> Error {
    Error::unavailable(message).with_remedy(
        "Check the network and the store's endpoint (for S3: AWS_ENDPOINT_URL); nothing is lost, try again later.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_below_object_store_is_full() {
        let io = io::Error::from(io::ErrorKind::StorageFull);
        let e = Failure::of("writing x", object_store::Error::Generic { store: "folder", source: Box::new(io) });
        assert_eq!((e.error.kind(), e.hope), (ErrorKind::Full, Hope::None));
        assert!(e.error.remedy().is_some());
    }

    #[test]
    fn too_many_open_files_keep_their_remedy() {
        let io = io::Error::from_raw_os_error(24);
        let e = Failure::of("listing x", object_store::Error::Generic { store: "folder", source: Box::new(io) });
        assert!(e.error.remedy().is_some_and(|remedy| remedy.contains("ulimit -n")), "{:?}", e.error);
    }
}
