//! What the door cannot be opened for.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::error::{RetryClass, Retryable};

/// What the door cannot be opened for.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Not on the loopback interface, and no token to ask for.
    #[error(
        "{addr} can be reached from other machines: set admin_token_file for this node, or use an address such as 127.0.0.1"
    )]
    TokenNeeded {
        /// The address of the configuration.
        addr: SocketAddr,
    },
    /// The address is taken or not of this machine.
    #[error(
        "cannot listen at {addr}: set another `admin` address for this node, or stop the program that has it"
    )]
    Bind {
        /// The address of the configuration.
        addr: SocketAddr,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The token file cannot be used.
    #[error(
        "the admin token file {path} cannot be used ({problem}): put one long line into it and keep it from others with chmod 600"
    )]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl Retryable for AdminError {
    fn retry_class(&self) -> RetryClass {
        match self {
            Self::Bind { .. } => RetryClass::Transient,
            Self::TokenNeeded { .. } | Self::Token { .. } => RetryClass::Operator,
        }
    }
}
