//! Other processes: a pool of workers for jobs that are to have a process of their own.

pub mod pool;
