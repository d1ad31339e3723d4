//! Values as the server reads them: binary forms, and parameters of statements.

pub(super) mod binary;
pub(super) mod params;
