"""What other people's programs need to use Phalanx; none of it is imported by the client itself."""
