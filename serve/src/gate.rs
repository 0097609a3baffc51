//! Who is let in.

use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::tokens::Verifier;

/// Puts into each call what its caller may do.
#[derive(Clone)]
pub(crate) enum Gate {
    /// Whoever reaches the server may do everything.
    Open,
    /// A token says who may do what.
    Tokens(Verifier),
}

impl Interceptor for Gate {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        match self {
            Gate::Open => quire_proto::wire::everyone(request),
            Gate::Tokens(verifier) => verifier.call(request),
        }
    }
}
