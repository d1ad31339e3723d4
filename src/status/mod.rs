//! What every link is doing: one set of structs that feeds the HTTP answers, the metrics and the
//! command line alike.

mod behind;
pub mod cluster;
pub mod gather;
mod health;
pub mod model;
pub mod monitor;
pub mod node;
mod rates;
pub mod render;
