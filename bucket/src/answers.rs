//! Between object_store and the network: turns an HTTP answer that refuses a
//! request into a typed [`Refusal`], while its status and body are still at
//! hand. Above, object_store keeps of them only a text, and calls a missing
//! bucket a missing object.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::{ClientOptions, RetryConfig};

/// How much of a refusal's body is read: error documents are short.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// How much of one that is no error document is shown.
const SHOWN_BODY_CHARS: usize = 200;
/// Where clouds answer questions about the machine's own credentials.
const METADATA_HOSTS: [&str; 3] = ["169.254.169.254", "169.254.170.2", "metadata.google.internal"];

/// A server's refusal, with its status and what the error document said.
#[derive(Debug, thiserror::Error)]
#[error("{status} {code}: {message}")]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// The machine-readable code, for example `NoSuchBucket`.
    pub(crate) code: String,
    pub(crate) message: String,
}

/// No credentials were given, and the machine's metadata service gave none.
#[derive(Debug, thiserror::Error)]
#[error("no credentials are set, and this machine has no role that gives any ({0})")]
pub(crate) struct NoCredentials(String);

/// object_store's own retries are off: it sends a create-only PUT again when
/// the reply was lost, and then reports the success of the first as a failure.
pub(crate) fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, ..RetryConfig::default() }
}

/// Makes HTTP clients that give typed refusals.
#[derive(Debug, Default)]
pub(crate) struct Connector(ReqwestConnector);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        self.0.connect(options).map(|client| HttpClient::new(Typed(client)))
    }
}

#[derive(Debug)]
struct Typed(HttpClient);

#[async_trait]
impl HttpService for Typed {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let asks_metadata = request.uri().host().is_some_and(|host| METADATA_HOSTS.contains(&host));
        let none = |reason: String| Err(HttpError::new(HttpErrorKind::Unknown, NoCredentials(reason)));
        match self.0.execute(request).await {
            Err(e) if asks_metadata => none(e.to_string()),
            Err(e) => Err(e),
            // That service may be busy for a moment; any other refusal stays.
            Ok(response) if asks_metadata && matches!(response.status().as_u16(), 400..=428 | 430..=499) => {
                none(format!("it answered {}", response.status()))
            }
            Ok(response) if response.status().as_u16() < 300 => Ok(response),
            Ok(response) => refused(response).await,
        }
    }
}

async fn refused(response: HttpResponse) -> Result<HttpResponse, HttpError> {
    let status = response.status().as_u16();
    let (parts, body) = response.into_parts();
    let body = read_some(body.bytes_stream()).await?;
    let refusal = Refusal::parse(status, &body);
    // These answer the question asked of the object; object_store knows them.
    let about_object = match status {
        304 | 412 => true,
        404 => !refusal.is_missing_bucket(),
        409 => !matches!(refusal.code.as_str(), "ConditionalRequestConflict" | "OperationAborted"),
        _ => false,
    };
    if about_object {
        return Ok(HttpResponse::from_parts(parts, body.into()));
    }
    Err(HttpError::new(HttpErrorKind::Unknown, refusal))
}

async fn read_some(mut body: BoxStream<'static, Result<Bytes, HttpError>>) -> Result<Bytes, HttpError> {
    let mut read = Vec::new();
    while let Some(chunk) = body.try_next().await? {
        read.extend_from_slice(&chunk);
        if read.len() >= MAX_BODY_BYTES {
            read.truncate(MAX_BODY_BYTES);
            break;
        }
    }
    Ok(read.into())
}

impl Refusal {
    pub(crate) fn parse(status: u16, body: &[u8]) -> Refusal {
        let text = String::from_utf8_lossy(body);
        let code = element(&text, "Code").unwrap_or_default().to_owned();
        let message = match element(&text, "Message") {
            Some(message) => message.to_owned(),
            None => text.chars().filter(|c| !c.is_control()).take(SHOWN_BODY_CHARS).collect(),
        };
        Refusal { status, code, message }
    }

    /// The bucket itself is not there, rather than an object in it.
    pub(crate) fn is_missing_bucket(&self) -> bool {
        matches!(self.code.as_str(), "NoSuchBucket" | "ContainerNotFound")
            || (self.status == 404 && self.message.contains("specified bucket does not exist"))
    }
}

/// The text of the first XML element of this name.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_documents_are_understood() {
        let xml = b"<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>It is not there</Message></Error>";
        let refusal = Refusal::parse(404, xml);
        assert!(refusal.is_missing_bucket());
        assert_eq!(refusal.to_string(), "404 NoSuchBucket: It is not there");
        assert!(!Refusal::parse(404, b"<Error><Code>NoSuchKey</Code></Error>").is_missing_bucket());
        let page = Refusal::parse(502, b"<html>\nBad gateway");
        assert_eq!((page.code.as_str(), page.message.as_str()), ("", "<html>Bad gateway"));
    }
}
